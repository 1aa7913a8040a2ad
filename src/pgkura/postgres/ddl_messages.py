"""Event triggers that write changes of definitions into the log: objects of ours in the user's database, on demand."""

import json
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import RightsError
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError

PREFIX = "pgkura.ddl"
_DENIED = "42501"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a trigger wrote. `event`: ddl_command_end, sql_drop or table_rewrite; objects: (tag, type, identity)."""

    event: str
    objects: tuple[tuple[str, str, str], ...]
    query: str
    role: str
    search_path: str

    def as_json(self) -> dict[str, Any]:
        """In `find --json`."""
        return {
            "event": self.event,
            "objects": [{"tag": tag, "type": kind, "name": name} for tag, kind, name in self.objects],
            "query": self.query,
            "role": self.role,
            "search_path": self.search_path,
        }


def install(session: Session) -> bool:
    """False if they are there already. Raises RightsError where this role may not make event triggers."""
    if session.one(query("ddl", "installed"))[0]:
        return False
    try:
        session.script(query("ddl", "remove"))
        session.script(query("ddl", "install"))
    except SqlError as error:
        if error.sqlstate != _DENIED:
            raise
        raise RightsError(
            "this role may not make event triggers",
            detail=error.msg,
            hint="a superuser may, and `postgres` on Supabase; without them changes are seen at the next look",
        ) from error
    return True


def remove(session: Session) -> None:
    """Whatever is left of them."""
    session.script(query("ddl", "remove"))


def parse(content: bytes) -> Told | None:
    """A message of theirs. Anyone may write such messages: None for what is none."""
    try:
        said = json.loads(content)
        return Told(
            event=str(said["event"]),
            objects=tuple((str(o["tag"]), str(o["type"]), str(o["name"])) for o in said["objects"]),
            query=str(said["query"]),
            role=str(said["role"]),
            search_path=str(said["search_path"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
