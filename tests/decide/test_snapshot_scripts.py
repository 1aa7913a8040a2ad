"""The SQL files of the Python-free way back: nothing of a tenant's outside quotes, whatever it is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.catalog.grants import Grant, parse_acl
from pgkura.snapshot.scripts import block


def _outside_quotes(sql: str) -> str:
    """What a lexer sees between literals: plain ones end at an undoubled quote, E'…' ones know backslashes."""
    seen: list[str] = []
    place = 0
    while place < len(sql):
        if sql[place] != "'":
            seen.append(sql[place])
            place += 1
            continue
        escapes = seen[-1:] == ["E"]
        place += 1
        while True:
            if (escapes and sql[place] == "\\") or sql[place : place + 2] == "''":
                place += 2
            elif sql[place] == "'":
                place += 1
                break
            else:
                place += 1
    return "".join(seen)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_a_block_is_one_literal_whatever_stands_in_it(text: str) -> None:
    assert _outside_quotes(block(text, text)) in ("DO ;\n", "DO E;\n")


def test_privileges_of_databases_and_large_objects() -> None:
    assert parse_acl(["=Tc/postgres", "app=C*c/postgres", '"odd ""name"""=rw*/"o=x"']) == [
        Grant(grantee="", plain=("TEMPORARY", "CONNECT"), with_option=()),
        Grant(grantee="app", plain=("CONNECT",), with_option=("CREATE",)),
        Grant(grantee='odd "name"', plain=("SELECT",), with_option=("UPDATE",)),
    ]


@pytest.mark.parametrize("text", ["nonsense", "app=X/postgres"])
def test_what_is_no_privilege_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"aclitem|privilege"):
        parse_acl([text])
