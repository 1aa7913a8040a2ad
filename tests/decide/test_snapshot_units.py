"""Pieces cover every page exactly once; units are largest first; statements quote every name."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.support.snapshot_facts import column, table

from pgkura.core.facts import LargeObjectFacts
from pgkura.core.names import QualifiedName
from pgkura.snapshot.options import MIB, Options
from pgkura.snapshot.planner import TINY_PER_UNIT, group_blobs, group_pieces, pieces_of, size_of
from pgkura.snapshot.statements import blob_statement, copy_statement
from pgkura.snapshot.units import BlobRange, Piece

PAGE = 8192
OPTIONS = Options(range_pages=512)


@given(st.integers(0, 200_000), st.sampled_from([64, 512, 2048]))
def test_pieces_cover_every_page_once(pages: int, step: int) -> None:
    options = Options(range_pages=step)
    pieces = pieces_of(0, table(pages=pages, size=pages * PAGE), options, divisible=True)
    assert pieces[0].start == 0
    assert pieces[-1].end is None
    for one, two in itertools.pairwise(pieces):
        assert one.end == two.start
    assert [p.first for p in pieces] == list(range(len(pieces)))


def test_small_gentle_foreign_and_indivisible_tables_stay_whole() -> None:
    large = table(pages=1_000_000, size=1_000_000 * PAGE)
    assert len(pieces_of(0, large, OPTIONS, divisible=True)) > 1
    assert pieces_of(0, large, OPTIONS, divisible=False)[0].whole
    assert pieces_of(0, large, Options(gentle=True), divisible=True)[0].whole
    assert pieces_of(0, table(pages=1_000_000, access_method="columnar"), OPTIONS, divisible=True)[0].whole
    assert pieces_of(0, table(pages=1_000_000, config_where="WHERE id > 5"), OPTIONS, divisible=True)[0].whole
    assert pieces_of(0, table(pages=10), OPTIONS, divisible=True)[0].whole


@given(st.lists(st.integers(0, 60_000), max_size=200))
def test_units_hold_every_piece_once_largest_first(sizes: list[int]) -> None:
    tables = [(i, table(f"t{i}", oid=20000 + i, pages=n, size=n * PAGE)) for i, n in enumerate(sizes)]
    groups = group_pieces(tables, OPTIONS, frozenset(t.oid for _, t in tables))
    flat = [p for g in groups for p in g]
    assert sorted((p.number, p.first) for p in flat) == sorted(
        (p.number, p.first) for i, t in tables for p in pieces_of(i, t, OPTIONS, divisible=True)
    )
    weights = [sum(map(size_of, g)) for g in groups]
    assert weights == sorted(weights, reverse=True)
    assert all(len(g) <= TINY_PER_UNIT or len({p.number for p in g}) == 1 for g in groups)


def test_two_thousand_tiny_tables_make_few_units() -> None:
    groups = group_pieces([(i, table(f"t{i}", oid=20000 + i)) for i in range(2000)], OPTIONS, frozenset())
    assert 2000 / TINY_PER_UNIT <= len(groups) <= 40


@given(st.lists(st.integers(0, 200 * MIB), max_size=40))
def test_blob_ranges_keep_the_order(sizes: list[int]) -> None:
    objects = [LargeObjectFacts(oid=100 + i, owner="o", size=s) for i, s in enumerate(sizes)]
    ranges = group_blobs(list(reversed(objects)))
    assert [o.oid for r in ranges for o in r.objects] == [o.oid for o in objects]
    assert [r.first for r in ranges] == list(range(len(ranges)))


def test_statements() -> None:
    odd = table('a"b\\c', columns=(column(1, "x y"), column(2, "g", generated="s"), column(3, "ü")))
    assert copy_statement(Piece(number=0, table=odd)) == ('COPY "public".U&"a""b\\005cc" ("x y", "ü") TO STDOUT')
    assert copy_statement(Piece(number=0, table=odd, start=8, end=16)) == (
        'COPY (SELECT "x y", "ü" FROM ONLY "public".U&"a""b\\005cc" '
        "WHERE ctid >= '(8,0)'::pg_catalog.tid AND ctid < '(16,0)'::pg_catalog.tid) TO STDOUT"
    )
    assert copy_statement(Piece(number=0, table=odd, start=8)).endswith(
        "WHERE ctid >= '(8,0)'::pg_catalog.tid) TO STDOUT"
    )
    assert copy_statement(Piece(number=0, table=table(columns=()))) == 'COPY "public"."t" TO STDOUT'
    only_generated = table(columns=(column(1, "g", generated="s"),))
    assert copy_statement(Piece(number=0, table=only_generated)) == 'COPY "public"."t" TO STDOUT'
    config = table(config_where="WHERE id < 5")
    assert copy_statement(Piece(number=0, table=config)) == (
        'COPY (SELECT "id" FROM ONLY "public"."t" WHERE id < 5) TO STDOUT'
    )
    other = copy_statement(Piece(number=0, table=odd), name=QualifiedName("s", "n"), columns=("ü",))
    assert other == 'COPY "s"."n" ("ü") TO STDOUT'


def test_blob_statement_names_every_object() -> None:
    objects = tuple(LargeObjectFacts(oid=oid, owner="o", size=9) for oid in (7, 9))
    text = blob_statement(BlobRange(first=0, objects=objects))
    assert "{7,9}" in text
    assert text.startswith("COPY (SELECT ")
    assert text.endswith(") TO STDOUT")


def test_ranges_of_a_table_whose_rows_lie_in_toast_are_shorter() -> None:
    """Each range is some megabytes, however small the heap; the number of its pages seldom changes."""
    for pages, size, step in (
        (5000, 5000 * PAGE, 512),
        (5000, 7 * 5000 * PAGE, 512),
        (5000, 8 * 5000 * PAGE, 64),
        (800, 300 * MIB, 64),
        (800, 400 * MIB, 8),
        (35, 30 * MIB, 8),
        (1, 900 * MIB, 8),
    ):
        pieces = pieces_of(0, table(pages=pages, size=size), OPTIONS, divisible=True)
        assert pieces[0].end == (step if pages > 2 * step else None)
