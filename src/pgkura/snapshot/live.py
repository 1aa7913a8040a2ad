"""Tables as they are now, in a statement of its own: READ COMMITTED, a new view of the catalogs each time."""

from collections.abc import Sequence

from pgkura.core.facts import Column
from pgkura.postgres.session import Session
from pgkura.snapshot.changed import LiveTable
from pgkura.snapshot.queries import query


def read_live(session: Session, oids: Sequence[int]) -> dict[int, LiveTable]:
    """By object id; what is gone is absent. The session must be outside a transaction."""
    heads: dict[int, tuple[str, str, str, int]] = {}
    columns: dict[int, list[Column]] = {}
    for oid, schema, name, kind, filenode, attnum, *rest in session.rows(query("live_table"), (list(oids),)):
        heads[oid] = (schema, name, kind, filenode)
        found = columns.setdefault(oid, [])
        if attnum is not None:
            column, type_, not_null, generated, identity = rest
            found.append(
                Column(
                    attnum=attnum,
                    name=column,
                    type=type_,
                    not_null=not_null,
                    generated=generated,
                    identity=identity,
                )
            )
    return {
        oid: LiveTable(oid=oid, schema=s, name=n, kind=k, filenode=f, columns=tuple(columns[oid]))
        for oid, (s, n, k, f) in heads.items()
    }
