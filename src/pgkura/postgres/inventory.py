"""The whole catalog of user state as plain items, for comparison: a reading that shares nothing with pg_dump."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pgkura.core.names import quote_literal
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session

# In the order of the file; what a comparison shows is grouped so.
CLASSES = (
    "schema", "extension", "relation", "column", "constraint", "index", "trigger", "rule", "policy", "function", "type",
    "operator", "operator_class", "operator_family", "cast", "collation", "conversion", "text_search_configuration",
    "text_search_dictionary", "text_search_parser", "text_search_template", "access_method", "language", "transform",
    "event_trigger", "publication", "publication_schema", "subscription", "foreign_data_wrapper", "server",
    "user_mapping", "statistics", "default_privileges", "security_label", "system_privileges", "parameter",
)  # fmt: skip
# Catalogs that older servers do not have.
_SINCE = {"publication_schema": 150000, "parameter": 150000}

_OWN = re.compile(r"\$own\((\w+), (\w+)\)")
_SINCE_INIT = re.compile(r"\$since_init\(([\w.]+), ([\w.]+), (\w), ([\w.]+)\)")
_ACL = re.compile(r"\$acl\(([\w.]+), ([^,]+), ([\w.]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object: its class, its SQL identity, its attributes as JSON values."""

    cls: str
    identity: str
    attributes: dict[str, Any]


def read_inventory(session: Session, classes: Sequence[str] = CLASSES) -> Iterator[Item]:
    """Items class by class, streamed; call it inside the transaction whose state is meant."""
    for cls in _known_to(session, classes):
        for identity, attributes in session.stream(_expanded(query("inventory", cls))):
            yield Item(cls=cls, identity=identity, attributes=attributes)


def read_inventory_lines(session: Session, classes: Sequence[str] = CLASSES) -> Iterator[bytes]:
    """The same as lines, a JSON object each, in pieces of whole lines: written by the server, never parsed here."""
    for cls in _known_to(session, classes):
        parts = (
            quote_literal(f'{{"class":"{cls}","identity":'),
            "pg_catalog.to_jsonb(o.identity::pg_catalog.text)::pg_catalog.text",
            """',"attributes":'""",
            "o.attributes::pg_catalog.text",
            "'}'",
        )
        items = f"(\n{_expanded(query('inventory', cls))}\n) AS o (identity, attributes)"
        statement = f"COPY (SELECT pg_catalog.concat({', '.join(parts)}) FROM {items}) TO STDOUT"
        for batch in session.copy_out(statement):
            # JSON holds no control characters, so that all which COPY text writes otherwise is the backslash.
            yield bytes(batch.data).replace(b"\\\\", b"\\")


def _known_to(session: Session, classes: Sequence[str]) -> list[str]:
    return [cls for cls in classes if session.server_version >= _SINCE.get(cls, 0)]


def _expanded(sql: str) -> str:
    return _ACL.sub(_acl, _OWN.sub(_own, _SINCE_INIT.sub(_since_init, sql)))


def _own(found: re.Match[str]) -> str:
    catalog, alias = found[1], found[2]
    return (
        f"NOT EXISTS (SELECT FROM pg_catalog.pg_depend dep WHERE dep.deptype = 'e' AND dep.objid = {alias}.oid "
        f"AND dep.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass)"
    )


def _acl(found: re.Match[str]) -> str:
    acl, kind, owner = found[1], found[2], found[3]
    letter = kind if " " in kind else f"'{kind}'"
    return (
        '(SELECT pg_catalog.array_agg(x.item ORDER BY x.item COLLATE "C") FROM (SELECT CASE e.grantee WHEN 0 THEN '
        "'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee)::text END || '=' || e.privilege_type || "
        "CASE WHEN e.is_grantable THEN '*' ELSE '' END || '/' || pg_catalog.pg_get_userbyid(e.grantor) AS item "
        f'FROM pg_catalog.aclexplode(COALESCE({acl}, pg_catalog.acldefault(({letter})::"char", {owner}))) e) x)'
    )


def _since_init(found: re.Match[str]) -> str:
    """Privileges in the first list and not in the second, whoever granted them."""
    kind, owner = found[3], found[4]

    def listed(acl: str) -> str:
        return (
            "SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee)::text END || '=' || "
            "e.privilege_type || CASE WHEN e.is_grantable THEN '*' ELSE '' END AS item FROM "
            f"pg_catalog.aclexplode(COALESCE({acl}, pg_catalog.acldefault('{kind}'::\"char\", {owner}))) e"
        )

    both = f"{listed(found[1])} EXCEPT {listed(found[2])}"
    return f'(SELECT pg_catalog.array_agg(x.item ORDER BY x.item COLLATE "C") FROM ({both}) x)'
