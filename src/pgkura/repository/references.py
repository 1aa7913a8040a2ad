"""Which objects a snapshot needs, in a file that hosts can read: `references/<snapshot id>`.

Format: docs/formats/repository.md, "References". Written before the manifest, the file is also the *claim* of a
running backup: an object that is named in one is not deleted (docs/decisions/0005).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.manifest import Manifest
from pgkura.repository.spool import ObjectMap

REFERENCES = "references/"
_ID = re.compile(r"[0-9a-f]{32}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def needed_objects(manifest: Manifest, refs: Iterable[ChunkRef]) -> ObjectMap:
    """The objects of the manifest's components and of these chunks, by id."""
    needed = ObjectMap()
    for ref in chain((ref for c in manifest.components.values() for ref in c.refs), refs):
        needed.add(ref.object)
    return needed


def write_references(objects: Mapping[str, ObjectRef]) -> Iterator[bytes]:
    """Lines of the list, sorted by id."""
    yield b"pgkura-references\t1\n"
    ascending = objects.ascending() if isinstance(objects, ObjectMap) else (o for _, o in sorted(objects.items()))
    for o in ascending:
        yield f"object\t{o.id}\t{o.cipher_bytes}\t{o.sha256}\n".encode()


def read_references(payload: bytes, what: str) -> ObjectMap:
    """The inverse. Raises Tampered, FormatTooNew."""
    found = ObjectMap()
    for words in list_lines(payload, "pgkura-references", what):
        if words[0] != "object" or len(words) != 4 or not _ID.match(words[1]) or not _SHA256.match(words[3]):
            raise Tampered(f"{what} is damaged", detail="a line is not as the format says")
        found.add(ObjectRef(id=words[1], cipher_bytes=_number(words[2], what), sha256=words[3]))
    return found


def list_lines(payload: bytes, header: str, what: str) -> Iterator[list[str]]:
    """Lines of a small list after its header, split into words. Raises Tampered, FormatTooNew."""
    lines = _lines(payload, what)
    name, _, version = next(lines).partition("\t")
    if name != header or not payload.endswith(b"\n"):
        raise Tampered(f"{what} is damaged", detail=f"it is no {header} list, or was cut short")
    if version != "1":
        raise FormatTooNew(f"{what} has format {version}", hint="use a newer pgkura")
    for line in lines:
        yield line.split("\t")


def _lines(payload: bytes, what: str) -> Iterator[str]:
    """One at a time: a list may be long."""
    start = 0
    while start < len(payload):
        end = payload.find(b"\n", start)
        end = len(payload) if end < 0 else end
        try:
            yield payload[start:end].decode()
        except ValueError as error:
            raise Tampered(f"{what} is damaged", detail="it is not text, or has no lines") from error
        start = end + 1
    if not payload:
        yield ""


def _number(text: str, what: str) -> int:
    if not text.isdecimal():
        raise Tampered(f"{what} is damaged", detail="a size is no number")
    return int(text)
