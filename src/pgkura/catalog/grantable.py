"""Objects of an archive as GRANT and REVOKE name them. Pure."""

from pgkura.catalog.toc import Entry
from pgkura.core.names import quote_ident

_RELATIONS = {
    "TABLE": "TABLE",
    "VIEW": "TABLE",
    "MATERIALIZED VIEW": "TABLE",
    "FOREIGN TABLE": "TABLE",
    "SEQUENCE": "SEQUENCE",
}
_ROUTINES = frozenset({"FUNCTION", "PROCEDURE"})
_TYPES = frozenset({"TYPE", "DOMAIN"})


def grantable(entry: Entry) -> str:
    """How GRANT and REVOKE name the object; '' for kinds without privileges."""
    if entry.desc in _ROUTINES:
        return entry.drop.removeprefix("DROP ").rstrip(";\n")
    if entry.desc == "SCHEMA":
        return f"SCHEMA {quote_ident(entry.tag)}"
    kind = "TYPE" if entry.desc in _TYPES else _RELATIONS.get(entry.desc, "")
    return f"{kind} {quote_ident(entry.schema)}.{quote_ident(entry.tag)}" if kind else ""
