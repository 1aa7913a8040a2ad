"""What a restore notes of layers with dropped rows is enough for the proof that follows it, and only for equal rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.restored_layers import DIFFERENCES, LAYERED, Back, Kind, restored_layers
from tests.support.servers import newest

from pgkura.core.errors import Tampered


@pytest.fixture
def back(tmp_path: Path) -> Iterator[Back]:
    """On the newest server."""
    with restored_layers(newest(), tmp_path / "repository") as made:
        yield made


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_the_proof_needs_no_stored_row(back: Back, kind: Kind) -> None:
    """It is shown by taking all of them away; who comes later would need them."""
    tables = {t.name: t for t in back.planned.repo.chunk_list(back.planned.manifest)}
    assert all(any(x.drops for x in tables[name].layers) for name in LAYERED)
    restored = back.restore(kind)
    for name in LAYERED:
        noted = restored.seen.cuts.of(tables[name].number)
        assert noted is not None and len(noted) == sum(x.drops is not None for x in tables[name].layers)
    back.lose_rows()
    proof = back.prove(restored, kind)
    assert proof.equal and proof.tables_in_order == proof.tables
    with pytest.raises(Tampered, match="is missing"):
        back.forgetful().prove()


@pytest.mark.parametrize(("change", "table"), DIFFERENCES.items())
def test_what_differs_is_found(back: Back, change: str, table: str) -> None:
    assert back.differs_after(change) == {table}


def test_two_layers_at_a_time(back: Back) -> None:
    """Each reading has its own buffer, however the readings of a thread are mixed."""
    repo = back.planned.repo
    layers = [x for t in repo.chunk_list(back.planned.manifest) for x in t.layers if x.drops is not None]
    alone = [b"".join(repo.read_rows(x)) for x in layers]
    mixed = [repo.read_rows(x) for x in layers]
    begun = [next(pieces, b"") for pieces in mixed]
    assert [first + b"".join(pieces) for first, pieces in zip(begun, mixed, strict=True)] == alone
