"""What of a base can be carried over a change of definitions, and what is refused."""

from dataclasses import replace

import pytest

from pgkura.changes.covers import Cover
from pgkura.core.facts import Column, DatabaseFacts, SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.postgres.parts import Part, Parts
from pgkura.replay.carrying import CannotCarry, Carrying, carried_data, carry, check_constraints
from pgkura.repository.lists import TableData

DATABASE = DatabaseFacts(
    name="d",
    owner="o",
    encoding="UTF8",
    collate="C",
    ctype="C",
    locale_provider="c",
    locale="",
    acl=None,
    comment="",
    settings=(),
    role_settings=(),
    connection_limit=-1,
)


def column(number: int, name: str, kind: str = "integer", *, not_null: bool = False, generated: str = "") -> Column:
    """A column."""
    return Column(attnum=number, name=name, type=kind, not_null=not_null, generated=generated)


def table(oid: int, name: str, *columns: Column, kind: str = "r", node: int = 5) -> TableFacts:
    """A table."""
    return TableFacts(
        oid=oid,
        schema="s",
        name=name,
        kind=kind,
        owner="o",
        persistence="p",
        access_method="heap",
        filenode=node,
        pages=1,
        bytes=1,
        columns=columns,
    )


def facts(*tables: TableFacts) -> SourceFacts:
    """A database."""
    return SourceFacts(
        server_version_num=180000,
        system_identifier="1",
        database=DATABASE,
        tables=tables,
        sequences=(),
        large_objects=(),
        roles=(),
        memberships=(),
        extensions=(),
    )


def cover(
    *tables: TableFacts,
    whole: str = "",
    types: str = "t",
    missing: dict[tuple[int, int], str] | None = None,
    natts: int = 0,
    empty: frozenset[int] = frozenset(),
    why: str = "",
) -> Cover:
    """All tables in the log, with a fingerprint of their columns or of `whole`."""
    return Cover(
        tables={t.qname: ("key", why) for t in tables},
        settled=0,
        parts=Parts(
            tables={
                t.oid: Part(
                    whole=whole or repr((t.name, t.columns)),
                    key="k",
                    natts=natts or max((c.attnum for c in t.columns), default=0),
                    filenode=t.filenode,
                )
                for t in tables
            },
            types=types,
            missing=missing or {},
        ),
        empty=empty,
    )


A, B, C = column(1, "a", not_null=True), column(2, "b", "text"), column(3, "c")
OLD = table(9, "t", A, B)


def over(new: TableFacts, **more: object) -> Carrying:
    """From OLD to this."""
    return carry(facts(OLD), facts(new), cover(OLD), cover(new, **more))  # type: ignore[arg-type]


def test_columns_come_go_and_get_other_names() -> None:
    """By their numbers, whatever they are called."""
    made = over(table(9, "u", A, column(2, "b2", "text"), C), missing={(9, 3): "7"})
    assert made.forms[9].columns == (("a", 0, None), ("b2", 1, None), ("c", None, "7"))
    assert made.altered[9].form(["a", "b2", "c"]).columns == (("a", 0, None), ("b2", 1, None), ("c", 2, None))
    assert over(table(9, "t", B), natts=2).forms[9].columns == (("b", 1, None),)
    assert over(OLD).forms == {}
    assert made.forms[9].take((1, "x"), (None, None, "7")) == (1, "x", "7")


def test_a_form_between_is_understood_where_it_is_clear() -> None:
    """Added first, dropped later: rows of between have both. A name that could be two columns is not guessed at."""
    altered = over(table(9, "t", A, C)).altered[9]
    assert altered.form(["a", "b", "c"]).columns == (("a", 0, None), ("c", 2, None))
    assert altered.form(["a"]).columns == (("a", 0, None), ("c", None, None))
    for wrong in (["a", "x"], ["b"], ["c", "a"], []):
        with pytest.raises(CannotCarry):
            altered.form(wrong)


@pytest.mark.parametrize(
    ("new", "more", "why"),
    [
        (table(9, "t", A, B, C, node=6), {}, "rewritten"),
        (table(9, "t", A, column(2, "b", "integer")), {}, "another type"),
        (table(9, "t", A, column(2, "b", "text", not_null=True)), {}, "NULL"),
        (table(9, "t", A, B, column(3, "c", not_null=True)), {}, "NULL"),
        (table(9, "t", A, B, column(4, "c")), {}, "for a while"),
        (table(9, "t", A, B), {"whole": "x", "natts": 3}, "for a while"),
        (table(9, "t", A, column(3, "b", "text")), {}, "same names"),
        (table(9, "t", A, column(3, "b", "text"), column(4, "d")), {}, "same names"),
        (table(9, "t", column(1, "b", not_null=True), column(2, "a", "text")), {}, "same names"),
        (table(9, "t", A, B, C), {"types": "other"}, "labels"),
        (table(9, "t", A, B, column(3, "g", generated="s")), {}, ""),
    ],
)
def test_what_cannot_be_carried_is_refused(new: TableFacts, more: dict[str, object], why: str) -> None:
    """Rewritten rows, other types, values that nobody knows."""
    if not why:
        assert over(new, **more).forms[9].columns == (("a", 0, None), ("b", 1, None))
        return
    with pytest.raises(CannotCarry, match=why):
        over(new, **more)


def test_a_new_table_must_have_begun_empty() -> None:
    """Else its first rows are in no log."""
    new = table(10, "n", A)
    both = facts(OLD, new)
    with pytest.raises(CannotCarry, match="beginning"):
        carry(facts(OLD), both, cover(OLD), cover(OLD, new))
    made = carry(facts(OLD), both, cover(OLD), cover(OLD, new, empty=frozenset({10})))
    assert made.made == {10} and made.places == {0: 0}
    with pytest.raises(CannotCarry, match="for a while"):
        carry(facts(OLD), both, cover(OLD), cover(OLD, new, empty=frozenset({10}), natts=2))
    with pytest.raises(CannotCarry, match="beginning"):
        carry(facts(OLD), both, cover(OLD), cover(OLD, new, empty=frozenset({10}), why="it has no key"))
    old_log = replace(cover(OLD), parts=None)
    with pytest.raises(CannotCarry, match="did not note"):
        carry(facts(OLD), both, old_log, cover(OLD, new, empty=frozenset({10})))


def data(number: int, name: str, rows: int) -> TableData:
    """A table's chunks."""
    return TableData(number=number, name=name, columns="", target=name, rows=rows, bytes=rows)


def test_rows_are_those_of_the_older_snapshot_under_the_newer_ones_numbers() -> None:
    """A table that is gone is left out, a new one is empty, one that became empty since is not."""
    gone, kept, new = table(8, "gone", A), table(9, "t", A), table(10, "n", A)
    old, now = facts(gone, kept), facts(kept, new)
    made = carry(old, now, cover(gone, kept), cover(kept, new, empty=frozenset({10})))
    found = carried_data(made, now, [data(0, "gone", 5), data(1, "t", 6)], [data(1, "n", 7)])
    assert [(d.number, d.name, d.rows) for d in found] == [(0, "t", 6), (1, "n", 0)]


def test_a_newer_constraint_may_refuse_older_rows() -> None:
    """A unique index, a check: refused. Foreign keys are checked after the replay; new tables begin empty."""
    new = table(10, "n", A)
    renamed = table(9, "u", A, B)
    made = carry(facts(OLD), facts(renamed, new), cover(OLD), cover(renamed, new, empty=frozenset({10})))
    key = {("constraint", "k"): {"of": "s.t", "definition": "PRIMARY KEY (a)"}}
    later = {("constraint", "k"): {"of": "s.u", "definition": "PRIMARY KEY (a)"}}
    harmless = {
        ("constraint", "f"): {"of": "s.u", "definition": "FOREIGN KEY (a) REFERENCES s.n(a)"},
        ("constraint", "n"): {"of": "s.n", "definition": "CHECK ((a > 0))"},
        ("index", "i"): {"of": "s.u", "definition": "CREATE INDEX i ON s.u USING btree (b)"},
    }
    check_constraints(made, facts(OLD), facts(renamed, new), key, later | harmless)
    stricter: list[dict[tuple[str, str], dict[str, str | None]]] = [
        {("constraint", "c"): {"of": "s.u", "definition": "CHECK ((a > 0))"}},
        {("index", "i"): {"of": "s.u", "definition": "CREATE UNIQUE INDEX i ON s.u USING btree (b)"}},
        {("constraint", "d"): {"of": None, "definition": "CHECK ((VALUE > 0))"}},
    ]
    for strict in stricter:
        with pytest.raises(CannotCarry, match="newer"):
            check_constraints(made, facts(OLD), facts(renamed, new), key, {**later, **strict})


def test_names_are_as_the_covers_have_them() -> None:
    """The cover is asked by name."""
    assert cover(OLD).tables[QualifiedName("s", "t")] == ("key", "")
