"""Definitions as structure: table of contents, components, differences, roles, privileges. Pure; no server."""
