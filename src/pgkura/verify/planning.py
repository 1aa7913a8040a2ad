"""Tables that no query of ours may be planned for.

The planner evaluates the constant parts of expressions in indexes, statistics, checks and partition keys of every table
of a query, with the rights of whoever asks (PostgreSQL source: RelationGetIndexExpressions, get_relation_constraints).
"""

import re
from collections.abc import Collection

from pgkura.postgres.queries import query
from pgkura.postgres.session import Session

# Node trees as pg_node_tree prints them: braces, and a backslash before a brace that is part of a name.
_PIECE = re.compile(r"\\.|\{(\w+)(?: :(?:funcid|opno) (\d+))?|\}", re.DOTALL)
_NOT_CONSTANT = frozenset({"VAR", "PARAM"})


def calls_on_constants(tree: str, code: Collection[int]) -> bool:
    """Whether an expression calls one of these functions or operators with nothing but constants. Pure."""
    opened: list[tuple[int, bool]] = []
    for piece in _PIECE.finditer(tree):
        if piece[0] == "}":
            called, constant = opened.pop()
            if constant and called in code:
                return True
            if opened and not constant:
                opened[-1] = (opened[-1][0], False)
        elif piece[1]:
            opened.append((int(piece[2] or 0), piece[1] not in _NOT_CONSTANT))
    return False


def tables_not_to_plan(session: Session) -> frozenset[int]:
    """Their oids on this server."""
    found: set[int] = set()
    for relations, tree, code in session.rows(query("foreign_keys", "trees")):
        if calls_on_constants(tree, frozenset(code or ())):
            found.update(relations)
    return frozenset(found)
