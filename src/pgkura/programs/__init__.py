"""The only door to other programs: one runner, the PostgreSQL client programs, the embedded server."""
