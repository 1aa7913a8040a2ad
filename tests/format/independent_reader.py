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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


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


class Reader:
    """Opens a repository folder with an identity file."""

    def __init__(self, folder: Path, identity: Path) -> None:
        self.folder = folder
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
        components = {}
        for words in (text.split("\t") for text in rest.decode().splitlines()):
            word, name, object_id, _, sha256, offset, stored, length, mac = words
            assert word == "component"
            one = Chunk("", object_id, int(offset), int(stored), int(length), 0, mac)
            components[name] = self.chunk(one, sha256)
            fingerprint = json.loads(line)["components"][name]["fingerprint"]
            assert blake3(components[name], key=self.prints).hexdigest() == fingerprint
        return json.loads(line), components

    def tables(self, chunk_list: bytes) -> dict[str, tuple[list[str], bytes]]:
        """Per table: its line's words and its rows."""
        lines = chunk_list.decode().splitlines()
        assert lines[0] == "pgkura-chunks\t1"
        hashes: dict[str, str] = {}
        tables: dict[str, tuple[list[str], bytes]] = {}
        for words in (line.split("\t") for line in lines[1:]):
            if words[0] == "object":
                hashes[words[1]] = words[3]
            elif words[0] == "table":
                tables[words[1]] = (words, b"")
            else:
                number, object_id, offset, stored, length, rows, mac = words[1:]
                one = Chunk(number, object_id, int(offset), int(stored), int(length), int(rows), mac)
                plain = self.chunk(one, hashes[object_id])
                assert plain.count(b"\n") == one.rows
                head, before = tables[number]
                tables[number] = (head, before + plain)
        return tables


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
