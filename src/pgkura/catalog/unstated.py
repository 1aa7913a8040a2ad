"""Privileges that no archive of pg_dump states: on the functions of range types, and on parameters. Pure."""

import json
from collections.abc import Iterable, Iterator

from pgkura.catalog.inventory import Items
from pgkura.catalog.reconcile import PARAMETER, reconcile, reconcile_parameters
from pgkura.catalog.roles import Statement

_RANGE = "range_constructor"
# What every line about them holds; all others need not be parsed.
_SIGNS = (_RANGE.encode(), f'"class":"{PARAMETER}"'.encode())


def unstated_items(lines: Iterable[bytes]) -> Items:
    """Of the lines of an inventory those that `unstated_privileges` looks at."""
    found = (json.loads(line) for line in lines if any(sign in line for sign in _SIGNS))
    return {(str(i["class"]), str(i["identity"])): i["attributes"] for i in found}


def unstated_privileges(items: Items) -> Iterator[Statement]:
    """GRANT and REVOKE that make them as they were, on objects just made."""
    made = {
        key: item
        for key, item in items.items()
        if key[0] == "function" and _RANGE in str(item.get("definition")) and isinstance(item["acl"], list)
    }
    new = {
        key: {**item, "acl": [f"PUBLIC=EXECUTE/{item['owner']}", f"{item['owner']}=EXECUTE/{item['owner']}"]}
        for key, item in made.items()
    }
    parameters = {key: item for key, item in items.items() if key[0] == PARAMETER}
    yield from reconcile(made, new)
    yield from reconcile_parameters(parameters, {})
