"""Quoting, asked of a real server: what we print is what it reads, and lists stay one printable line."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.servers import newest

from pgkura.catalog.roles import set_clause
from pgkura.core.names import QualifiedName, quote_ident, quote_literal

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda s: 0 < len(s.encode()) <= 63)
ODD = st.sampled_from(
    ["a\tb", "a\nb", 'q"q', "back\\slash", "日本語", ".", " ", "'; DROP TABLE x; --", "U&", "\x7f", "\r"]
)


@pytest.fixture(scope="module")
def connection() -> "Iterator[psycopg.Connection[tuple[object, ...]]]":
    """One connection for all examples."""
    with psycopg.connect(newest().url(), autocommit=True) as made:
        yield made


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT | ODD)
def test_identifier(connection: "psycopg.Connection[tuple[object, ...]]", name: str) -> None:
    """The server reads the same name; no control character or backslash is left raw."""
    quoted = quote_ident(name)
    assert all(ch >= " " and ch != "\x7f" for ch in quoted) and "\t" not in quoted
    cursor = connection.execute(f"SELECT 1 AS {quoted}".encode())
    assert cursor.description is not None and cursor.description[0].name == name


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | ODD
)
def test_literal(connection: "psycopg.Connection[tuple[object, ...]]", text: str) -> None:
    """The server reads the same text, whatever standard_conforming_strings says."""
    for setting in ("on", "off"):
        connection.execute(f"SET standard_conforming_strings = {setting}".encode())
        row = connection.execute(f"SELECT {quote_literal(text)}".encode()).fetchone()
        assert row == (text,)
    connection.execute("SET standard_conforming_strings = on")


@pytest.mark.parametrize(
    ("stored", "clause"),
    [
        ("search_path=", "SET \"search_path\" TO ''"),
        (
            'search_path="$user", public, "odd, name", "q""q"',
            "SET \"search_path\" TO '$user', 'public', 'odd, name', 'q\"q'",
        ),
        ("statement_timeout=3s", "SET \"statement_timeout\" TO '3s'"),
        ("app.path=a, b", 'SET "app"."path" TO \'a, b\''),
        ("DateStyle=ISO, MDY", "SET \"DateStyle\" TO 'ISO, MDY'"),
    ],
)
def test_settings_come_back_as_stored(stored: str, clause: str) -> None:
    """Lists stay lists, plain values stay plain; then the server stores the same text."""
    assert set_clause(stored) == clause
    with psycopg.connect(newest().url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE setting_probe")
        try:
            connection.execute(f"ALTER ROLE setting_probe {clause}".encode())
            row = connection.execute("SELECT rolconfig[1] FROM pg_roles WHERE rolname = 'setting_probe'").fetchone()
            assert row is not None
            name, _, value = str(row[0]).partition("=")
            wanted_name, _, wanted = stored.partition("=")
            assert name.lower() == wanted_name.lower() and value.strip('"') == wanted.strip('"')
        finally:
            connection.execute("DROP ROLE setting_probe")


def test_no_empty_or_nul_names() -> None:
    """PostgreSQL has none, so neither do we."""
    for name in ("", "a\0b"):
        with pytest.raises(ValueError, match="identifier"):
            quote_ident(name)
    assert QualifiedName("a b", 'c"d').sql == '"a b"."c""d"'
