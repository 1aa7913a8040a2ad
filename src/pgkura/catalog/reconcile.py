"""Privileges made exactly equal, whatever default privileges did to a new object. Pure."""

from collections.abc import Iterator
from typing import Any

from pgkura.catalog.inventory import Items
from pgkura.catalog.roles import Statement
from pgkura.core.names import quote_ident
from pgkura.core.platform import Platform

# Inventory classes with an `acl` attribute, and how GRANT names them.
_NAMES = {
    "schema": "SCHEMA",
    "relation": "TABLE",
    "function": "ROUTINE",
    "type": "TYPE",
    "language": "LANGUAGE",
    "server": "FOREIGN SERVER",
    "foreign_data_wrapper": "FOREIGN DATA WRAPPER",
}
DEFAULTS = "default_privileges"
PARAMETER = "parameter"
GRANTABLE = (*_NAMES, DEFAULTS, PARAMETER)
# pg_default_acl.defaclobjtype
DEFAULT_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}
_FIRST_WITH_MAINTAIN = 17


def wanted_acls(items: Items, platform: Platform, major: int) -> dict[tuple[str, str], dict[str, Any]]:
    """What the executor needs of an inventory: privileges and owners of the user's own objects."""
    # MAINTAIN exists since 17 and comes with every ALL before it: what an older source could not have is not missed.
    return {
        key: {"acl": a["acl"], "old": major < _FIRST_WITH_MAINTAIN, "owner": a.get("owner"), "kind": a.get("kind")}
        for key, a in items.items()
        if key[0] in GRANTABLE and isinstance(a.get("acl"), list) and str(a.get("owner", "")) not in platform.owners
    }


def reconcile_defaults(want: Items, have: Items, me: str) -> Iterator[Statement]:
    """Default privileges of the role that restores, as they were; those of others are not ours to change."""
    mine = f"for {me} in "
    for key in sorted(want.keys() | have.keys()):
        cls, identity = key
        if cls != DEFAULTS or not identity.startswith(mine):
            continue
        schema, _, kind = identity.removeprefix(mine).rpartition(" on ")
        where = "" if schema == "all schemas" else f" IN SCHEMA {schema}"
        a = set(want[key]["acl"]) if key in want else set()
        b = set(have[key].get("acl") or ()) if key in have else set()
        if kind not in DEFAULT_KINDS or (schema == "all schemas" and key not in want):
            continue
        head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {me}{where}"
        for verb, items, word in (("REVOKE", b - a, "FROM"), ("GRANT", a - b, "TO")):
            for item in sorted(items):
                grantee, privilege, option, _ = _parse(item, "")
                tail = option if verb == "GRANT" else ""
                sql = f"{head} {verb} {privilege} ON {DEFAULT_KINDS[kind]} {word} {grantee}{tail}"
                yield Statement(object=f"{cls} {identity}", sql=sql)


def reconcile_parameters(want: Items, have: Items) -> Iterator[Statement]:
    """Rights to set parameters, which lie beside the database: granted where missing, never taken from others."""
    for key in sorted(k for k in want if k[0] == PARAMETER):
        present = set(have[key].get("acl") or ()) if key in have else set()
        for item in sorted(set(want[key]["acl"]) - present):
            grantee, privilege, option, _ = _parse(item, "")
            sql = f"GRANT {privilege} ON PARAMETER {key[1]} TO {grantee}{option}"
            yield Statement(object=f"{key[0]} {key[1]}", sql=sql)


def reconcile(want: Items, have: Items) -> Iterator[Statement]:
    """REVOKE and GRANT for every difference that the owner himself can make.

    Grants by others than the owner are left to the archive's own statements.
    """
    for key in sorted(k for k in want.keys() & have.keys() if k[0] in _NAMES):
        wanted, present = want[key], have[key]
        if wanted.get("owner") != present.get("owner"):
            continue
        a, b = set(wanted["acl"]), set(present.get("acl") or ())
        if wanted.get("old"):
            b = {item for item in b if "=MAINTAIN" not in item}
        cls, identity = key
        name = "SEQUENCE" if wanted.get("kind") == "S" else _NAMES[cls]
        for item in sorted(b - a):
            grantee, privilege, _, mine = _parse(item, str(present["owner"]))
            if mine and not any(_same(item, other) for other in a):
                sql = f"REVOKE {privilege} ON {name} {identity} FROM {grantee}"
                yield Statement(object=f"{cls} {identity}", sql=sql)
        for item in sorted(a - b):
            grantee, privilege, option, mine = _parse(item, str(wanted["owner"]))
            if mine:
                sql = f"GRANT {privilege} ON {name} {identity} TO {grantee}{option}"
                yield Statement(object=f"{cls} {identity}", sql=sql)


def _parse(item: str, owner: str) -> tuple[str, str, str, bool]:
    """(grantee, privilege, option clause, granted by the owner) of `grantee=PRIVILEGE*/grantor`."""
    left, _, grantor = item.rpartition("/")
    grantee, _, privilege = left.rpartition("=")
    option = " WITH GRANT OPTION" if privilege.endswith("*") else ""
    to = "PUBLIC" if grantee == "PUBLIC" else quote_ident(grantee)
    return to, privilege.removesuffix("*"), option, grantor == owner


def _same(item: str, other: str) -> bool:
    """Whether they differ in the grant option only."""
    return item.replace("*/", "/") == other.replace("*/", "/") and "*/" not in item
