"""What a restore that was cut short leaves behind and no archive can drop: it would hinder or colour the next one."""

from collections.abc import Set

from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError

_DENIED = "42501"


def end_remains(session: Session, default_privileges: Set[tuple[str, str]]) -> None:
    """Drop shell operators, and end the default privileges given as (schema, tag) of their archive entries.

    A shell operator (announced as COMMUTATOR or NEGATOR, never made) is in no dump and keeps its types from being
    dropped. Default privileges would give rights to everything the next restore makes.
    """
    statements = [s for (s,) in session.rows(query("target", "shell_operators"))]
    for schema, word, ending in session.rows(query("target", "default_privileges")):
        if (schema, f"DEFAULT PRIVILEGES FOR {word}") in default_privileges:
            statements += ending
    for statement in statements:
        try:
            session.execute(statement)
        except SqlError as error:
            if session.broken or error.sqlstate != _DENIED:
                raise
