"""pgkura: your backup plan for Supabase and PostgreSQL, as code: carried out, watched, and proven."""

__version__ = "0.1.0"

__all__ = ["__version__"]
