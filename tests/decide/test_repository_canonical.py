"""Canonical bytes in pieces are the canonical bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.repository import canonical

PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


@given(st.dictionaries(st.text(max_size=4), st.lists(VALUES, max_size=5) | VALUES, max_size=5), st.data())
def test_pieces_joined_are_the_record(record: dict[str, Any], data: st.DataObject) -> None:
    streamed = {
        key: iter(value) if isinstance(value, list) and data.draw(st.booleans()) else value
        for key, value in record.items()
    }
    assert b"".join(canonical.encode_in_pieces(streamed)) == canonical.encode(record)


def test_a_long_list_comes_in_pieces() -> None:
    items = [{"name": f"item {n}"} for n in range(20_000)]
    pieces = list(canonical.encode_in_pieces({"after": 1, "items": iter(items)}))
    assert len(pieces) > 4
    assert max(map(len, pieces)) < 80_000
    assert b"".join(pieces) == canonical.encode({"after": 1, "items": items})


@pytest.mark.parametrize("wrong", [1.5, {1: "x"}, [object()], {"a": [{"b": 1.0}]}, {"a": {2: []}}, {"a": b"x"}])
def test_what_cannot_be_canonical_is_refused_wherever_it_stands(wrong: Any) -> None:
    with pytest.raises(ValueError):
        canonical.encode(wrong)
    with pytest.raises(ValueError):
        list(canonical.encode_in_pieces({"items": iter([wrong])}))
