"""The plan document (pgkura.yaml) as data."""
