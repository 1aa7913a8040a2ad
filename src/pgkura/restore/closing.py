"""Keeps restored objects shut while rows load, and opens them exactly as they were at the end. Pure.

Row security and privileges come after the rows in every dump, yet a target's default privileges may open a relation
the moment it is created. So each object is made and closed in one implicit transaction.
"""

from collections.abc import Sequence

from pgkura.catalog.grantable import grantable
from pgkura.catalog.toc import Entry
from pgkura.core.names import quote_ident

_ROUTINES = frozenset({"FUNCTION", "PROCEDURE"})
_TYPES = frozenset({"TYPE", "DOMAIN"})


def closed_by(entry: Entry, others: Sequence[str], *, relations: bool = True) -> str:
    """What to run together with the definition: nobody but the owner may use the object for now.

    Routines are closed on every target: one that runs with its owner's rights may be called by everybody as soon as it
    exists, `relations` and schemas only where default privileges open them.
    """
    what = grantable(entry)
    if not what or entry.desc in _TYPES or (entry.desc not in _ROUTINES and not relations):
        return ""
    if entry.desc == "SCHEMA" and not others:
        return ""
    text = f"REVOKE ALL ON {what} FROM {_list(entry, others)};\n"
    if entry.desc == "TABLE":
        name = f"{quote_ident(entry.schema)}.{quote_ident(entry.tag)}"
        text += f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;\n"
    return text


def unforced(entry: Entry) -> str:
    """Forced row security would shut out the loading owner of a closed table too."""
    if entry.desc != "TABLE":
        return ""
    return f"ALTER TABLE {quote_ident(entry.schema)}.{quote_ident(entry.tag)} NO FORCE ROW LEVEL SECURITY;\n"


def opened_to_default(entry: Entry, others: Sequence[str], *, relations: bool = True) -> str:
    """Back to what PostgreSQL itself gives a new object: archives state privileges relative to that."""
    what = grantable(entry)
    if not what or _is_shell(entry) or (entry.desc not in _ROUTINES and not relations):
        return ""
    text = f"REVOKE ALL ON {what} FROM {_list(entry, others)};\n"
    if entry.desc in _ROUTINES:
        text += f"GRANT EXECUTE ON {what} TO PUBLIC;\n"
    elif entry.desc in _TYPES:
        text += f"GRANT USAGE ON {what} TO PUBLIC;\n"
    return text


def _is_shell(entry: Entry) -> bool:
    """A type that was only announced: it has no privileges, and none can be given."""
    name = entry.drop.removeprefix("DROP TYPE ").strip().rstrip(";")
    return entry.desc == "TYPE" and entry.defn.strip() == f"CREATE TYPE {name};"


def _list(entry: Entry, others: Sequence[str]) -> str:
    return ", ".join(["PUBLIC", *(quote_ident(role) for role in others if role != entry.owner)])
