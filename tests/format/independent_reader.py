"""A second reader of repository format 1, written from docs/formats/repository.md alone.

It shares no code with the product: the age, zstd and coreutils *programs* open files, `cryptography` checks signatures,
`blake3` checks MACs. What it cannot read, the document does not describe.
"""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tests.format.independent_tuples import text_line, tuples


@dataclass(frozen=True)
class Chunk:
    """A chunk line."""

    table: str
    object: str
    offset: int
    stored: int
    length: int
    rows: int
    mac: str


@dataclass(frozen=True)
class Layer:
    """A chunk and the lines before it that belong to it."""

    chunk: Chunk
    sizes: Chunk | None
    drops: Chunk | None
    dropped: int
    places: Chunk | None


@dataclass(frozen=True)
class Table:
    """A table of a chunk list: its line's words, its chunks."""

    words: list[str]
    layers: list[Layer]

    @property
    def binary(self) -> bool:
        """List version 1 knows text only."""
        assert self.words[7:] in ([], ["text"], ["binary"])
        return self.words[7:] == ["binary"]


@dataclass(frozen=True)
class Range:
    """A page range of a state: first page, page after the last, rows that count, day."""

    words: list[str]
    layers: list[Layer]


@dataclass(frozen=True)
class State:
    """A state: ranges by the table's object id; every object that holds it or that it names, with its SHA-256."""

    point: list[str]
    ranges: dict[str, list[Range]]
    hashes: dict[str, str]


class Parser:
    """Lines object, places, sizes, drops, chunk: those of a chunk come before it."""

    def __init__(self, *, numbered: bool) -> None:
        self.numbered = numbered
        self.hashes: dict[str, str] = {}
        self.waiting: dict[str, Chunk] = {}
        self.dropped = 0

    def line(self, words: list[str]) -> Layer | None:
        """A layer once its chunk is reached."""
        word, *rest = words
        if word == "object":
            assert rest[0] not in self.hashes
            self.hashes[rest[0]] = rest[2]
            return None
        number = rest.pop(0) if word == "chunk" and self.numbered else ""
        if word == "drops":
            self.dropped = int(rest.pop(0))
        object_id, offset, stored, length, rows, mac = rest
        assert object_id in self.hashes
        one = Chunk(number, object_id, int(offset), int(stored), int(length), int(rows), mac)
        if word != "chunk":
            assert word in ("places", "sizes", "drops") and word not in self.waiting and one.rows == 0
            self.waiting[word] = one
            return None
        sizes, drops, places = (self.waiting.pop(name, None) for name in ("sizes", "drops", "places"))
        return Layer(one, sizes, drops, self.dropped if drops else 0, places)


class Reader:
    """Opens a repository folder with an identity file."""

    def __init__(self, folder: Path, identity: Path) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        text = identity.read_text()
        secret = next(line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-1"))
        root = Ed25519PrivateKey.from_private_bytes(hkdf(secret, "pgkura/v1/root")).public_key()
        said = next(line for line in text.splitlines() if line.startswith("# root: ")).split()[2]
        if root.public_bytes_raw().hex() != said:  # a person's, which names the root
            root = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said))
        head = (folder / "pgkura-repository").read_bytes().split(b"\n", 1)[1]
        self.repository = str(json.loads(head)["repository"])
        assert bytes.fromhex(json.loads(head)["root"]) == root.public_bytes_raw()
        self.signers = {"root": root}
        self.body("pgkura-repository", "repository")
        for path in (folder / "keys").glob("host-*"):
            record = json.loads(self.body(f"keys/{path.name}", "host"))
            self.signers[record["host"]] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(record["signing"]))
        self.epochs = {}
        for path in sorted((folder / "keys").glob("epoch-*")):
            opened = age(self.body(f"keys/{path.name}", "epoch"), text).decode()
            number = int(path.name.removeprefix("epoch-"))
            self.epochs[number] = next(x for x in opened.splitlines() if x.startswith("AGE-SECRET-KEY-1"))
        self.good: dict[str, dict[str, str]] = {}
        for path in (folder / "keys").glob("revoked-*"):
            record = json.loads(self.body(f"keys/{path.name}", "revoked"))
            self.good[record["host"]] = record["good"]
        self.prints = hkdf(self.epochs[1], "pgkura/v1/chunk-mac")
        self.generations = []
        for path in sorted((folder / "keys").glob("shared-*")):
            self.generations.append(json.loads(self.record(f"keys/{path.name}", "shared")))

    def body(self, key: str, kind: str) -> bytes:
        """The body of a signed file, its signature checked as section 3 says."""
        header, body = (self.folder / key).read_bytes().split(b"\n", 1)
        magic, said, signer, signature = header.decode().split(" ")
        assert (magic, said) == ("pgkura1", kind)
        parts = [f"pgkura/v1/{kind}", self.repository, key, signer]
        message = "\0".join(parts).encode() + b"\0" + hashlib.sha256(body).digest()
        self.signers[signer].verify(base64.b64decode(signature), message)
        if kind in ("repository", "epoch", "people", "host", "shared", "revoked"):
            assert signer == "root"
        good = getattr(self, "good", {}).get(signer)
        if good is not None:
            assert good[key] == hashlib.sha256((self.folder / key).read_bytes()).hexdigest()
        return body

    def record(self, key: str, kind: str) -> bytes:
        """A record of the index class."""
        return zstd(age(self.body(key, kind), "\n".join(self.epochs.values())))

    def object(self, object_id: str, sha256: str) -> tuple[int, bytes]:
        """A decrypted object, and the epoch that opens it."""
        data = (self.folder / "data" / object_id[:2] / object_id).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        for number, secret in self.epochs.items():
            with contextlib.suppress(subprocess.CalledProcessError):
                return number, age(data, secret)
        raise AssertionError(f"no epoch opens {object_id}")

    def chunk(self, chunk: Chunk, sha256: str) -> bytes:
        """A chunk's plain bytes, length and MAC checked."""
        epoch, opened = self.object(chunk.object, sha256)
        frame = opened[chunk.offset : chunk.offset + chunk.stored]
        plain = zstd(frame)
        assert len(plain) == chunk.length
        mac_key = hkdf(self.epochs[epoch], "pgkura/v1/chunk-mac")
        assert blake3(plain, key=mac_key).hexdigest() == chunk.mac
        return plain

    def manifest(self, snapshot: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The manifest's record and the components that its lines name."""
        line, rest = self.record(f"snapshots/{snapshot}", "manifest").split(b"\n", 1)
        assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line
        components: dict[str, bytes] = {}
        for words in (text.split("\t") for text in lines_of(rest)):
            if words[2] == "+":  # one chunk of several
                del words[2]
            word, name, object_id, _, sha256, offset, stored, length, mac = words
            assert word == "component"
            one = Chunk("", object_id, int(offset), int(stored), int(length), 0, mac)
            components[name] = components.get(name, b"") + self.chunk(one, sha256)
        for name, content in components.items():
            fingerprint = json.loads(line)["components"][name]["fingerprint"]
            assert blake3(content, key=self.prints).hexdigest() == fingerprint
        return json.loads(line), components

    def tables(self, chunk_list: bytes) -> dict[str, tuple[list[str], bytes]]:
        """Per table of text rows: its line's words and its rows."""
        read = self.chunk_list(chunk_list)
        return {table.words[1]: (table.words, b"".join(self.rows(table))) for table in read}

    def chunk_list(self, chunk_list: bytes) -> list["Table"]:
        """Tables of a chunk list of version 1 or 2."""
        lines = lines_of(chunk_list)
        assert lines[0] in ("pgkura-chunks\t1", "pgkura-chunks\t2")
        parser = Parser(numbered=True)
        tables: list[Table] = []
        for words in (line.split("\t") for line in lines[1:]):
            if words[0] == "table":
                assert len(words) == (7 if lines[0].endswith("1") else 8)
                tables.append(Table(words, []))
            elif layer := parser.line(words):
                assert layer.chunk.table == tables[-1].words[1]
                tables[-1].layers.append(layer)
        assert not parser.waiting
        self.hashes.update(parser.hashes)
        return tables

    def rows(self, table: "Table", types: Sequence[str] = ()) -> Iterator[bytes]:
        """The rows that count, as lines of COPY text. `types`: of the columns, for binary rows."""
        count = length = 0
        for layer in table.layers:
            plain = self.stored(layer.chunk)
            length += len(plain)
            if table.binary:
                assert layer.sizes is not None
                lines = [text_line(row, types) for row in tuples(plain, unpacked(self.stored(layer.sizes), 4))]
            else:
                assert layer.sizes is None
                *whole, rest = plain.split(b"\n")
                assert rest == b""
                lines = [line + b"\n" for line in whole]
            assert len(lines) == layer.chunk.rows
            dropped = set(self.drops(layer))
            kept = [line for number, line in enumerate(lines, 1) if number not in dropped]
            count += len(kept)
            yield from kept
        assert (count, length) == (int(table.words[5]), int(table.words[6]))

    def drops(self, layer: "Layer") -> list[int]:
        """Numbers of its rows that do not count."""
        if layer.drops is None:
            return []
        numbers = [int(line) for line in self.stored(layer.drops).decode().splitlines()]
        assert len(numbers) == layer.dropped and numbers == sorted(set(numbers))
        assert numbers[0] >= 1 and numbers[-1] <= layer.chunk.rows
        return numbers

    def stored(self, chunk: Chunk) -> bytes:
        """A chunk of a list that was parsed."""
        return self.chunk(chunk, self.hashes[chunk.object])

    def state(self, snapshot: str) -> "State":
        """A state, every list of places opened."""
        parts = Parser(numbered=False)
        header, *lines = lines_of(self.record(f"state/{snapshot}", "state"))
        assert header == "pgkura-index\t1"
        layers = [layer for line in lines if (layer := parts.line(line.split("\t")))]
        self.hashes.update(parts.hashes)
        header, *lines = lines_of(b"".join(self.stored(layer.chunk) for layer in layers))
        assert header == "pgkura-state\t1"
        parser = Parser(numbered=False)
        state = State([], {}, dict(parts.hashes))
        for words in (line.split("\t") for line in lines):
            if words[0] == "point":
                state.point.extend(words[1:])
            elif words[0] == "table":
                ranges = state.ranges.setdefault(words[1], [])
            elif words[0] == "range":
                ranges.append(Range(words[1:], []))
            elif layer := parser.line(words):
                ranges[-1].layers.append(layer)
        state.hashes.update(parser.hashes)
        self.hashes.update(parser.hashes)
        return state

    def places(self, layer: "Layer") -> list[int]:
        """The place of each row of a chunk."""
        assert layer.places is not None
        return list(accumulate(unpacked(self.stored(layer.places), 8)))

    def references(self, snapshot: str) -> dict[str, str]:
        """Objects that a snapshot says it needs: id and SHA-256."""
        header, *lines = lines_of(self.record(f"references/{snapshot}", "references"))
        assert header == "pgkura-references\t1" and lines == sorted(lines)
        found = {}
        for word, object_id, size, sha256 in (line.split("\t") for line in lines):
            assert word == "object"
            assert (self.folder / "data" / object_id[:2] / object_id).stat().st_size == int(size)
            found[object_id] = sha256
        return found

    def tombstone(self, name: str) -> dict[str, list[str]]:
        """Values by word."""
        header, *lines = lines_of(self.record(f"tombstones/{name}", "tombstone"))
        assert header == "pgkura-tombstone\t1"
        found: dict[str, list[str]] = {}
        for word, value in (line.split("\t") for line in lines):
            found.setdefault(word, []).append(value)
        return found


def lines_of(text: bytes) -> list[str]:
    """Of a list: ended by newlines, and by nothing else that Python takes for the end of a line."""
    *lines, rest = text.decode().split("\n")
    assert rest == ""
    return lines


def unpacked(stored: bytes, width: int) -> list[int]:
    """Numbers stored transposed: the lowest byte of each, then the second byte of each, and so on."""
    count, rest = divmod(len(stored), width)
    assert rest == 0
    return [int.from_bytes(stored[i::count], "little", signed=width == 8) for i in range(count)]


def hkdf(secret: str, info: str) -> bytes:
    """HKDF-SHA256, no salt, 32 bytes."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info.encode()).derive(secret.encode())


def age(data: bytes, key: str) -> bytes:
    """`age -d -i KEY`."""
    with tempfile.NamedTemporaryFile("w", suffix=".key") as file:
        file.write(key)
        file.flush()
        return program(["age", "-d", "-i", file.name], data)


def zstd(data: bytes) -> bytes:
    """`zstd -dc`."""
    return program(["zstd", "-dcq"], data)


def program(argv: list[str], data: bytes) -> bytes:
    """A filter."""
    return subprocess.run(argv, input=data, capture_output=True, check=True, env={"PATH": os.environ["PATH"]}).stdout
