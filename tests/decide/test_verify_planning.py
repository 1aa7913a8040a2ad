"""Which expressions the planner evaluates by itself: calls of a stranger's function on constants."""

import pytest

from pgkura.verify.planning import calls_on_constants

VAR = "{VAR :varno 1 :varattno 2 :vartype 25}"
CONST = "{CONST :consttype 25 :constvalue 5 [ 20 0 0 0 120 ] :location -1}"


def call(function: int, *arguments: str) -> str:
    """A FUNCEXPR as pg_node_tree prints it."""
    return f"{{FUNCEXPR :funcid {function} :funcresulttype 25 :args ({' '.join(arguments)}) :location 7}}"


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        (call(20000, CONST), True),
        (call(20000), True),
        (call(20000, VAR), False),
        (call(20000, VAR, CONST), False),
        (call(99, CONST), False),
        (call(99, VAR, call(20000, CONST)), True),
        (call(20000, VAR, call(99, CONST)), False),
        (call(20000, call(99, VAR)), False),
        (f"({call(20000, VAR)} {call(20000, CONST)})", True),
        (f"{{OPEXPR :opno 20001 :opfuncid 0 :args ({CONST} {CONST})}}", True),
        (f"{{OPEXPR :opno 20001 :opfuncid 0 :args ({CONST} {VAR})}}", False),
        (call(20000, r"{ALIAS :aliasname a\{VAR\}b}"), True),
    ],
)
def test_only_constants_count(tree: str, found: bool) -> None:
    assert calls_on_constants(tree, {20000, 20001}) is found
