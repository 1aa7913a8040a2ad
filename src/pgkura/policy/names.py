"""What the plan document is called."""

DEFAULT_NAME = "pgkura.yaml"
