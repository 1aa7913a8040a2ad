"""Bytes under keys: memory, folders, S3. Knows nothing of snapshots, seals or databases."""
