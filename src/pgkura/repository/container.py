"""Signed files: one header line, then the body. The signature binds kind, repository, key and signer to the body.

    pgkura1 <kind> <signer> <base64 of the Ed25519 signature>\\n<body>

`tail -n +2 FILE` is the body. Domain separation and layout: docs/formats/repository.md, "Signed files".
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pgkura.core.errors import FormatTooNew, Tampered

MAGIC = b"pgkura1"
ROOT = "root"
_MAX_HEADER = 256


def message(kind: str, repository_id: str, key: str, signer: str, body: bytes) -> bytes:
    """What is signed."""
    parts = (b"pgkura/v1/" + kind.encode(), repository_id.encode(), key.encode(), signer.encode())
    return b"\0".join(parts) + b"\0" + hashlib.sha256(body).digest()


def seal_signature(
    kind: str, repository_id: str, key: str, body: bytes, *, signer: str, private: Ed25519PrivateKey
) -> bytes:
    """The file to store under `key`."""
    signature = base64.b64encode(private.sign(message(kind, repository_id, key, signer, body)))
    return b" ".join((MAGIC, kind.encode(), signer.encode(), signature)) + b"\n" + body


def open_signature(
    data: bytes, kind: str, repository_id: str, key: str, signers: Mapping[str, Ed25519PublicKey]
) -> tuple[str, bytes]:
    """(signer, body) of a stored file. Raises Tampered, FormatTooNew; nothing of the body is looked at before."""
    head, newline, body = data[:_MAX_HEADER].partition(b"\n")
    words = head.split(b" ")
    if not newline or not words[0].startswith(b"pgkura"):
        raise Tampered(f"{key} is not a pgkura file", detail="no header line", hint="see `pgkura verify`")
    if words[0] != MAGIC:
        raise _unknown_magic(key, words[0])
    if len(words) != 4 or words[1] != kind.encode():
        raise Tampered(f"{key} is not a {kind} file", detail="it was moved, or its header is damaged")
    signer = words[2].decode("ascii", "replace")
    public = signers.get(signer)
    if public is None:
        raise Tampered(
            f"{key} is signed by an unknown hand",
            detail=f"signer {signer!r} was never signed into keys/ by this repository's root",
            hint="somebody else wrote this file; do not trust the store's other recent files either",
        )
    body = data[len(head) + 1 :]
    try:
        signature = base64.b64decode(words[3], validate=True)
        if base64.b64encode(signature) != words[3]:
            raise InvalidSignature  # bits that base64 has no use for: one file, one sequence of bytes
        public.verify(signature, message(kind, repository_id, key, signer, body))
    except (InvalidSignature, binascii.Error) as error:
        raise Tampered(
            f"{key} is damaged or forged",
            detail="its signature does not fit its bytes, its place or this repository",
            hint="see `pgkura verify` for all damage; restore another snapshot or another copy of the repository",
        ) from error
    return signer, body


def signer_of(data: bytes) -> str:
    """Who a file says has signed it, '' when it is no signed file. Proves nothing."""
    words = data[:_MAX_HEADER].partition(b"\n")[0].split(b" ")
    return words[2].decode("ascii", "replace") if len(words) == 4 else ""


def magic_version(magic: bytes) -> int | None:
    """The number in `pgkura2`, None where there is none."""
    version = magic.removeprefix(b"pgkura")
    return int(version) if magic.startswith(b"pgkura") and version.isdigit() and len(version) < 6 else None


def _unknown_magic(key: str, magic: bytes) -> FormatTooNew | Tampered:
    version = magic_version(magic)
    if version is not None and version > 1:
        return FormatTooNew(f"{key} has format {version}; this program reads format 1", hint="use a newer pgkura")
    return Tampered(f"{key} is not a pgkura file", detail="unknown header")
