"""The ledger: whatever happens to a table, it ends with the rows of one instant or with a `lost` finding."""

from dataclasses import replace

from tests.support.snapshot_facts import column, table

from pgkura.core.access import Access
from pgkura.core.outcome import FindingClass, Result, decide
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.snapshot.booked import Booked
from pgkura.snapshot.changed import LiveTable, compare_with_locks, difference, plan_reread
from pgkura.snapshot.ledger import MAX_INTERRUPTIONS, Ledger, Request, first_requests
from pgkura.snapshot.units import (
    BLOBS,
    BlobRange,
    Mode,
    Piece,
    RangeRead,
    Read,
    StoredChunk,
    TableRead,
    UnitResult,
    WorkUnit,
)

TABLES = (table("a", oid=1), table("b", oid=2))


def _unit(mode: Mode, *pieces: Piece, blobs: BlobRange | None = None) -> WorkUnit:
    return WorkUnit(
        id=1,
        mode=mode,
        access=Access(database="env:X", repository="memory:"),
        snapshot="1-1",
        run="r",
        pieces=pieces,
        blobs=blobs,
        chunk_bytes=1,
        lock_wait_ms=1,
        late_lock_seconds=1,
        bytes_per_second=0,
        storage_class="",
    )


def _piece(number: int, first: int = 0) -> Piece:
    return Piece(number=number, table=TABLES[number], first=first, start=first, end=first + 1)


def _chunk(piece: int, position: int, mac: str, *, is_new: bool = True) -> StoredChunk:
    where = ObjectRef(id="0" * 32, cipher_bytes=1, sha256="0" * 64)
    ref = ChunkRef(object=where, offset=0, stored=1, length=1, rows=1, mac=mac.encode().hex().ljust(64, "0"))
    return StoredChunk(piece=piece, position=position, layer=Layer(chunk=ref), fresh=(ref,) if is_new else ())


def _name(ref: ChunkRef) -> str:
    return bytes.fromhex(ref.mac).rstrip(b"\0").decode()


def _done(number: int, *chunks: StoredChunk) -> TableRead:
    return TableRead(number=number, outcome=Read.DONE, rows=len(chunks), bytes=10 * len(chunks), chunks=chunks)


def test_pieces_come_back_in_order_whatever_the_order_of_results() -> None:
    ledger = Ledger(TABLES, Booked())
    second = UnitResult(unit=_unit(Mode.HELD, _piece(0, 1)), tables=(_done(0, _chunk(1, 1, "d"), _chunk(1, 0, "c")),))
    first = UnitResult(unit=_unit(Mode.HELD, _piece(0, 0)), tables=(_done(0, _chunk(0, 0, "a", is_new=False)),))
    assert ledger.record(second) == []
    assert ledger.record(first) == []
    (stored,) = ledger.stored()
    assert [_name(x.chunk) for x in stored.layers] == ["a", "c", "d"]
    assert (stored.rows, ledger.bytes_read, ledger.chunks_unchanged) == (3, 30, 1)
    assert {_name(c) for c in ledger.new_chunks()} == {"c", "d"}
    assert decide(ledger.findings) is Result.OK


def test_an_interrupted_unit_is_sent_again_as_late_pieces_of_each_table() -> None:
    ledger = Ledger(TABLES, Booked())
    unit = _unit(Mode.HELD, _piece(0), _piece(1))
    gone = tuple(TableRead(number=n, outcome=Read.INTERRUPTED) for n in (0, 1))
    requests = ledger.record(UnitResult(unit=unit, tables=gone))
    assert requests == [
        Request(mode=Mode.LATE, pieces=(_piece(0),)),
        Request(mode=Mode.LATE, pieces=(_piece(1),)),
    ]
    assert ledger.findings == []


def test_a_table_taken_again_and_again_is_given_up_and_named() -> None:
    ledger = Ledger(TABLES, Booked())
    result = UnitResult(unit=_unit(Mode.LATE, _piece(0)), tables=(TableRead(number=0, outcome=Read.INTERRUPTED),))
    for _ in range(MAX_INTERRUPTIONS):
        assert ledger.record(result)
    assert ledger.record(result) == []
    assert [f.cls for f in ledger.findings] == [FindingClass.LOST]
    assert tuple(ledger.stored()[0].layers) == ()


def test_a_changed_table_forgets_its_rows_and_is_read_again_whole() -> None:
    ledger = Ledger(TABLES, Booked())
    ledger.record(UnitResult(unit=_unit(Mode.HELD, _piece(0, 0)), tables=(_done(0, _chunk(0, 0, "old")),)))
    changed = TableRead(number=0, outcome=Read.CHANGED, reason="truncated or rewritten")
    (request,) = ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(0, 1)), tables=(changed,)))
    assert request.mode is Mode.REREAD
    assert request.pieces[0].whole
    assert ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(0, 2)), tables=(_done(0, _chunk(2, 0, "x")),))) == []
    reread = UnitResult(unit=_unit(Mode.REREAD, *request.pieces), tables=(_done(0, _chunk(0, 0, "new")),))
    assert ledger.record(reread) == []
    assert [_name(x.chunk) for x in ledger.stored()[0].layers] == ["new"]
    assert [f.reason for f in ledger.findings] == ["changed while the backup ran; stored as of a later instant"]
    assert decide(ledger.findings) is Result.INCOMPLETE


def test_rows_read_after_the_holder_gave_way_do_not_count() -> None:
    ledger = Ledger(TABLES, Booked())
    ledger.release([0], at=100.0)
    assert ledger.mode_of(0, Mode.HELD) is Mode.LATE
    assert ledger.mode_of(1, Mode.HELD) is Mode.HELD
    before = UnitResult(unit=_unit(Mode.HELD, _piece(0, 0)), tables=(_done(0, _chunk(0, 0, "a")),), locked_at=99.0)
    after = UnitResult(unit=_unit(Mode.HELD, _piece(0, 1)), tables=(_done(0, _chunk(1, 0, "b")),), locked_at=100.5)
    assert ledger.record(before) == []
    assert ledger.record(after) == [Request(mode=Mode.LATE, pieces=(_piece(0, 1),))]
    assert [_name(x.chunk) for x in ledger.stored()[0].layers] == ["a"]


def test_what_can_be_followed_comes_table_by_table_with_the_places_of_its_rows() -> None:
    ledger = Ledger(TABLES, Booked())
    places = _chunk(0, 0, "places").layer.chunk
    placed = _chunk(1, 0, "b")
    placed = replace(placed, layer=replace(placed.layer, places=places))
    for number, first, chunks in ((1, 0, ()), (0, 1, (placed,)), (0, 0, (_chunk(0, 1, "d"), _chunk(0, 0, "c")))):
        read = replace(
            _done(number, *chunks), ranges=(RangeRead(piece=first, start=10 * first, end=None, rows=len(chunks)),)
        )
        ledger.record(UnitResult(unit=_unit(Mode.HELD, _piece(number, first)), tables=(read,)))
    found = [
        (number, [(r.start, r.before.since, [_name(x.chunk) for x in r.before.layers]) for r in ranges])
        for number, ranges in ledger.followed("today")
    ]
    assert found == [(0, [(0, "today", ["c", "d"]), (10, "today", ["b"])]), (1, [(0, "today", [])])]
    assert list(ledger.places()) == [places]
    gone = TableRead(number=0, outcome=Read.GONE)
    ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(0, 2)), tables=(gone,)))
    assert [number for number, _ in ledger.followed("today")] == [1]
    assert list(ledger.places()) == []


def test_dropped_and_refused_tables_keep_no_rows_and_are_named() -> None:
    ledger = Ledger(TABLES, Booked())
    ledger.record(UnitResult(unit=_unit(Mode.HELD, _piece(0, 0)), tables=(_done(0, _chunk(0, 0, "a")),)))
    ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(0, 1)), tables=(TableRead(number=0, outcome=Read.GONE),)))
    ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(1)), tables=(TableRead(number=1, outcome=Read.REFUSED),)))
    assert [tuple(s.layers) for s in ledger.stored()] == [(), ()]
    assert [f.object for f in ledger.findings] == ['table "public"."a"', 'table "public"."b"']


def test_interrupted_large_objects_are_asked_for_again() -> None:
    ledger = Ledger(TABLES, Booked())
    unit = _unit(Mode.HELD, blobs=BlobRange(first=0, objects=()))
    (again,) = ledger.record(UnitResult(unit=unit, tables=(TableRead(number=BLOBS, outcome=Read.INTERRUPTED),)))
    assert again.blobs == unit.blobs


def test_groups_are_split_by_what_is_held() -> None:
    requests = first_requests([(_piece(0), _piece(1))], frozenset({1}), [])
    assert [(r.mode, [p.number for p in r.pieces]) for r in requests] == [(Mode.HELD, [1]), (Mode.LATE, [0])]


def _live(known_oid: int = 1, **changes: object) -> LiveTable:
    base = table("a", oid=known_oid)
    values: dict[str, object] = {
        "oid": base.oid,
        "schema": base.schema,
        "name": base.name,
        "kind": base.kind,
        "filenode": base.filenode,
        "columns": base.columns,
    }
    values.update(changes)
    return LiveTable(**values)  # type: ignore[arg-type]  # built from keyword changes


def test_what_counts_as_a_difference() -> None:
    known = TABLES[0]
    assert difference(known, _live()) == ""
    assert difference(known, _live(name="renamed")) == ""
    assert difference(known, _live(filenode=77)) == "truncated or rewritten"
    assert "columns" in difference(known, _live(columns=(column(1, "other", not_null=True),)))
    assert "columns" in difference(known, _live(columns=(*known.columns, column(2, "more"))))
    assert "columns" in difference(known, _live(columns=(column(2, "id", not_null=True),)))


def test_a_reread_keeps_what_fits_the_old_definition() -> None:
    known = table(columns=(column(1, "id", not_null=True), column(2, "note", "text"), column(3, "g", generated="s")))
    same = plan_reread(known, _live(columns=known.columns))
    assert same.columns is not None
    assert [c.name for c in same.columns] == ["id", "note"]
    assert same.reason == ""
    without = plan_reread(known, _live(columns=(column(1, "id", not_null=True), column(4, "new"))))
    assert without.columns is not None
    assert [c.name for c in without.columns] == ["id"]
    assert '"note"' in without.reason
    hard = plan_reread(known, _live(columns=(column(2, "note", "text"),)))
    assert hard.columns is None
    assert '"id"' in hard.reason


def test_only_what_is_really_held_counts_as_held() -> None:
    tables = (table("a", oid=1), table("b", oid=2), table("v", oid=3, kind="m"), table("x", oid=4, readable=False))
    comparison = compare_with_locks(tables, frozenset({1, 3}))
    assert comparison.held == {0}
    assert comparison.late == {1}


def test_a_statement_that_runs_too_long_is_tried_once_more_and_then_named() -> None:
    ledger = Ledger(TABLES, Booked())
    unit = _unit(Mode.HELD, _piece(0))
    overran = TableRead(number=0, outcome=Read.OVERRAN, reason="a statement ran longer than the 1 s allowed")
    (again,) = ledger.record(UnitResult(unit=unit, tables=(overran,)))
    assert again == Request(mode=Mode.LATE, pieces=unit.pieces)
    assert ledger.findings == []
    assert ledger.record(UnitResult(unit=_unit(Mode.LATE, _piece(0)), tables=(overran,))) == []
    (finding,) = ledger.findings
    assert (finding.cls, finding.object) == (FindingClass.LOST, 'table "public"."a"')
    assert "too long" in finding.reason and "1 s allowed" in finding.reason
    assert ledger.record(UnitResult(unit=_unit(Mode.HELD, _piece(0, 1)), tables=(_done(0),))) == []


def test_large_objects_that_take_too_long_are_named_too() -> None:
    ledger = Ledger(TABLES, Booked())
    unit = _unit(Mode.HELD, blobs=BlobRange(first=0, objects=()))
    overran = UnitResult(unit=unit, tables=(TableRead(number=BLOBS, outcome=Read.OVERRAN),))
    assert ledger.record(overran) == [Request(mode=Mode.HELD, blobs=unit.blobs)]
    assert ledger.record(overran) == []
    assert [f.object for f in ledger.findings] == ["large objects"]
