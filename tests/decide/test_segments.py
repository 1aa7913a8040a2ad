"""Where the log is cut: whole transactions, every table introduced, nothing lost."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.changes import pgoutput
from pgkura.changes.segment import Segmenter, frames, record_of
from pgkura.core.errors import Tampered
from pgkura.repository.changes import PartRef
from pgkura.repository.seal import decompress


def begin(lsn: int, xid: int) -> bytes:
    """A Begin."""
    return b"B" + struct.pack("!QqI", lsn, 0, xid)


def commit(lsn: int) -> bytes:
    """A Commit that ends 8 bytes later."""
    return b"C" + struct.pack("!BQQq", 0, lsn, lsn + 8, 0)


def relation(oid: int) -> bytes:
    """A table with one key column."""
    return (
        b"R"
        + struct.pack("!I", oid)
        + b"public\0t%d\0d" % oid
        + struct.pack("!H", 1)
        + b"\1id\0"
        + struct.pack("!Ii", 23, -1)
    )


def insert(oid: int, value: bytes) -> bytes:
    """One row."""
    return b"I" + struct.pack("!I", oid) + b"N" + struct.pack("!H", 1) + b"t" + struct.pack("!I", len(value)) + value


@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=300)), max_size=6), max_size=12), st.data())
def test_every_segment_stands_alone(transactions: list[list[tuple[int, bytes]]], data: st.DataObject) -> None:
    """All rows come back in order, each after its table's introduction, wherever it is cut."""
    told: set[int] = set()
    cuts = []
    segmenter = Segmenter(0, lambda packed: PartRef(id="0" * 32, bytes=len(packed), sha256="0" * 64))
    lsn = 100
    for number, rows in enumerate(transactions):
        segmenter.take(lsn, begin(lsn + 50, number + 5))
        for oid, value in rows:
            if oid not in told:
                told.add(oid)
                segmenter.take(0, relation(oid))
            segmenter.take(lsn, insert(oid, value))
        assert segmenter.inside
        segmenter.take(lsn + 50, commit(lsn + 50))
        assert not segmenter.inside and segmenter.position == lsn + 58
        lsn += 100
        if data.draw(st.booleans()):
            cuts.append(segmenter.cut())
    cuts.append(segmenter.cut())
    seen = []
    for cut in cuts:
        record = record_of(cut, chain="x", before=(0, 0), rest_bytes=0)
        assert record["changes"] == sum(sum(t[2:]) for t in record["tables"])
        introduced = set()
        pieces = decompress(cut.rest, "a segment", limit=cut.rest_plain) if cut.rest else iter(())
        for _, payload in frames(pieces):
            if payload[0] == pgoutput.RELATION:
                introduced.add(pgoutput.relation_of(payload))
            elif payload[0] == pgoutput.INSERT:
                change = pgoutput.change(payload)
                assert change.relation in introduced and change.new is not None
                seen.append((change.relation, change.new[0]))
    assert seen == [row for rows in transactions for row in rows]
    assert all(a.tally.end == b.tally.start for a, b in pairwise(cuts))


def test_frames_that_end_early_are_refused() -> None:
    """Half a message is damage."""
    with pytest.raises(Tampered):
        list(frames([struct.pack("!IQ", 10, 0) + b"12345"]))
