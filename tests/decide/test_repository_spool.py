"""What lies in working files instead of memory: the same answers as plain lists and dicts."""

import pickle
import random

from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository.known import KnownChunks
from pgkura.repository.lists import Lines
from pgkura.repository.shelf import ChunkShelf
from pgkura.repository.spool import LayerPile, ObjectMap, objects_of, pack_layer, places_of, unpack_layer


def an_object(number: int) -> ObjectRef:
    return ObjectRef(id=f"{number:032x}", cipher_bytes=number * 2**33, sha256=f"{number + 1:064x}")


def a_ref(number: int, *, held: int = 0, mac: int | None = None) -> ChunkRef:
    return ChunkRef(
        object=an_object(held),
        offset=number * 2**34,
        stored=7,
        length=2**40 + number,
        rows=number,
        mac=f"{number if mac is None else mac:064x}",
    )


def layers(count: int, first: int = 0) -> list[Layer]:
    """Of every shape."""
    shapes: list[dict[str, ChunkRef]] = [
        {},
        {"sizes": a_ref(1, held=8)},
        {"drops": a_ref(2, held=9), "places": a_ref(3)},
        {"drops": a_ref(2), "sizes": a_ref(4), "places": a_ref(3)},
    ]
    return [Layer(chunk=a_ref(n, held=n // 3), dropped=n % 5, **shapes[n % 4]) for n in range(first, first + count)]


def test_a_packed_layer_is_the_same_layer() -> None:
    for layer in layers(8):
        assert unpack_layer(pack_layer(layer)) == layer
        assert places_of(pack_layer(layer)) == layer.places


def test_tables_of_a_pile_keep_their_layers_in_memory_or_in_a_file() -> None:
    pile = LayerPile(few=10)
    wanted = [layers(4), [], layers(3, 40), layers(2_000, 100), layers(1, 7), layers(3, 50), layers(1_000, 9)]
    found = []
    for table in wanted:
        for layer in table:
            pile.append(layer)
        found.append(pile.take())
    assert [isinstance(x, tuple) for x in found] == [True, True, True, False, True, False, False]
    for _ in range(2):
        assert [list(x) for x in found] == wanted
    assert [len(x) for x in found] == [len(x) for x in wanted]
    assert pickle.loads(pickle.dumps(found[3])) == tuple(wanted[3])
    both = zip(found[3], found[6], strict=False)
    assert list(both) == list(zip(wanted[3], wanted[6], strict=False)), "two readers at once"


def test_objects_by_id_whether_few_or_many() -> None:
    chance = random.Random(1)
    found, wanted = ObjectMap(few=3), dict[str, ObjectRef]()
    for _ in range(500):
        one = an_object(chance.randrange(60))
        assert found.add(one) == (one.id not in wanted)
        wanted[one.id] = one
        other = an_object(chance.randrange(60)).id
        assert found.get(other) == wanted.get(other)
        assert (other in found) == (other in wanted)
        assert len(found) == len(wanted)
    assert dict(found) == wanted
    assert [o.id for o in found.ascending()] == sorted(wanted)
    assert found.get("no id") is None
    assert list(objects_of(a_ref(1, held=n % 2) for n in range(9))) == [an_object(0), an_object(1)]


def test_an_object_line_comes_once_before_its_first_chunk() -> None:
    lines = Lines()
    words = [line.split(b"\t")[0] for n in (0, 0, 1, 0, 1) for line in lines.chunk(a_ref(n, held=n))]
    assert words == [b"object", b"chunk", b"chunk", b"object", b"chunk", b"chunk", b"chunk"]


def test_known_are_the_chunks_of_objects_that_are_there_in_their_size() -> None:
    known = KnownChunks()
    known.present([(an_object(1).id, an_object(1).cipher_bytes), (an_object(2).id, 5)])
    known.load([a_ref(10, held=1), a_ref(11, held=2), a_ref(12, held=3)])
    known.load([a_ref(13, held=1, mac=10)])
    known.ready()
    assert known.get(a_ref(10).mac) == a_ref(13, held=1, mac=10), "the one that was added last"
    assert known.get(a_ref(11).mac) is None, "of another size"
    assert known.get(a_ref(12).mac) is None, "not there"
    known.add([a_ref(n, held=n % 7) for n in range(20, 2_000)])
    assert known.get(a_ref(1_234).mac) == a_ref(1_234, held=1_234 % 7)


def test_a_shelf_holds_each_place_once_with_the_sizes_somebody_knew() -> None:
    shelf = ChunkShelf()
    shelf.put([(a_ref(2), a_ref(9)), (a_ref(1), None), (a_ref(2), None), (a_ref(3, held=1), None)])
    assert shelf.of(an_object(0).id) == [Layer(chunk=a_ref(1)), Layer(chunk=a_ref(2), sizes=a_ref(9))]
    assert list(shelf.all()) == [a_ref(1), a_ref(2), a_ref(3, held=1)]
    assert a_ref(1) in shelf and a_ref(4) not in shelf
