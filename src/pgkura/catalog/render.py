"""An entry as SQL for our own driver, equal to what pg_restore would write for it; never a psql command.

pg_restore keeps the definition and the owner apart (pg_backup_archiver.c, `_printTocEntry`,
`_getObjectDescription`); so do we.
"""

from collections.abc import Iterable

from pgkura.catalog.kinds import KINDS
from pgkura.catalog.toc import Entry
from pgkura.core.names import quote_ident


def definition(entry: Entry) -> str:
    """What creates the object, under its table access method. '' for an entry that only carries an owner."""
    if entry.defn.startswith("--"):
        return ""
    if entry.table_am and entry.relkind != "p" and entry.desc in ("TABLE", "MATERIALIZED VIEW"):
        return f"SET default_table_access_method = {quote_ident(entry.table_am)};\n{entry.defn}"
    if entry.table_am and entry.desc == "TABLE":
        return f"{entry.defn}ALTER TABLE {_name(entry)} SET ACCESS METHOD {quote_ident(entry.table_am)};\n"
    return entry.defn


def ownership(entry: Entry) -> str:
    """`ALTER … OWNER TO …`, or '' for a kind without an owner."""
    how = KINDS[entry.desc].owned
    if not how or not entry.owner or not (entry.drop or entry.desc == "SCHEMA"):
        return ""
    if how == "drop":
        what = entry.drop.removeprefix("DROP ").rstrip(";\n")
    else:
        what = f"{entry.desc} {_name(entry)}"
    return f"ALTER {what} OWNER TO {quote_ident(entry.owner)};\n"


def _name(entry: Entry) -> str:
    return (f"{quote_ident(entry.schema)}." if entry.schema else "") + quote_ident(entry.tag)


def in_passes(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """(main, privileges, last) as pg_restore orders them: event triggers and their comments come last."""
    main: list[Entry] = []
    privileges: list[Entry] = []
    last: list[Entry] = []
    for entry in entries:
        if entry.desc in ("ACL", "DEFAULT ACL"):
            privileges.append(entry)
        elif entry.desc == "EVENT TRIGGER" or entry.subject == "EVENT TRIGGER":
            last.append(entry)
        else:
            main.append(entry)
    return main, privileges, last
