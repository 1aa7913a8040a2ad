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
GRANTABLE = tuple(_NAMES)
_FIRST_WITH_MAINTAIN = 17


def wanted_acls(items: Items, platform: Platform, major: int) -> dict[tuple[str, str], dict[str, Any]]:
    """What the executor needs of an inventory: privileges and owners of the user's own objects."""
    # MAINTAIN exists since 17 and comes with every ALL before it: what an older source could not have is not missed.
    return {
        key: {"acl": a["acl"], "old": major < _FIRST_WITH_MAINTAIN, "owner": a.get("owner"), "kind": a.get("kind")}
        for key, a in items.items()
        if key[0] in _NAMES and isinstance(a.get("acl"), list) and str(a.get("owner", "")) not in platform.owners
    }


def reconcile(want: Items, have: Items) -> Iterator[Statement]:
    """REVOKE and GRANT for every difference that the owner himself can make.

    Grants by others than the owner are left to the archive's own statements.
    """
    for key in sorted(want.keys() & have.keys()):
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
