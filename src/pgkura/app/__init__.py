"""Composition root: environment and flags become live objects. The only room that reads environment variables."""
