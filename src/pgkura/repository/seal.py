"""age and zstd: the only place that seals and opens bytes."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice

import pyrage
import zstandard

from pgkura.core.errors import Tampered, WrongKey

LEVEL = 1
# A table of 2^13 places stays in a core's first cache: a tenth quicker than level 1's 2^14, and as small (measured on
# rows as text and binary; any zstd reads it).
HASH_LOG = 13
# Plain bytes that are compressed in one call: as much as level 1 looks back.
PIECE = 512 * 1024
# What is unpacked comes in pieces below the size from which the allocator asks the system for each anew (memory.py):
# new pages cost a third of what unpacking costs. A COPY sends pieces of this size as they are.
UNPACKED_PIECE = 256 * 1024
# Held while a whole object is sealed or opened, when it is in memory up to three times. The library keeps the other
# threads of this process waiting anyway, nearly all of that time: one object at a time costs nothing.
ONE_OBJECT = threading.Lock()


def seal(plain: bytes, recipients: Sequence[str]) -> bytes:
    """An age file for the recipients (https://age-encryption.org/v1)."""
    return seal_parts([plain], recipients)


def seal_parts(parts: list[bytes], recipients: Sequence[str]) -> bytes:
    """The same of what is in parts. Takes them out of the list: a large text is never in memory as a whole in clear."""
    sealed = _Parts()
    pyrage.encrypt_io(_Reader(parts), sealed, [pyrage.x25519.Recipient.from_str(r) for r in recipients])
    return b"".join(sealed)


class _Reader:
    """A file of parts, which are forgotten as they are read."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        parts.reverse()
        self._at = 0

    def read(self, size: int) -> bytes:
        while self._parts:
            piece = self._parts[-1][self._at : self._at + size]
            self._at += len(piece)
            if piece:
                return piece
            self._parts.pop()
            self._at = 0
        return b""


class _Parts(list[bytes]):
    """A file that keeps what is written."""

    def write(self, data: bytes) -> int:
        self.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...


class _Room:
    """A file that is written into one buffer of a size that is known to be enough."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self._at = 0

    def write(self, data: bytes) -> int:
        self.bytes[self._at : self._at + len(data)] = data
        self._at += len(data)
        return len(data)

    def flush(self) -> None: ...

    def end(self) -> bytearray:
        """What was written."""
        del self.bytes[self._at :]
        return self.bytes


def unseal(data: bytes, secrets: Sequence[str], what: str) -> bytes:
    """The plain bytes. Raises WrongKey when no secret fits, Tampered when the file is damaged."""
    return bytes(unseal_object(data, secrets, what))


def unseal_object(data: bytes, secrets: Sequence[str], what: str) -> bytearray:
    """The same of something large, which is in memory sealed and in clear, and not once more."""
    plain = _Room(len(data))
    try:
        with ONE_OBJECT:
            pyrage.decrypt_io(BytesIO(data), plain, [pyrage.x25519.Identity.from_str(s) for s in secrets])
            return plain.end()
    except (pyrage.DecryptError, OSError) as error:
        if "No matching keys" in str(error):
            raise WrongKey(f"none of the keys at hand opens {what}", hint="use this repository's identity") from error
        raise Tampered(f"{what} is damaged", detail="its age envelope does not open") from error


def count_recipients(sealed: bytes) -> int:
    """How many keys open an age file, by its header."""
    return sealed.count(b"\n-> X25519 ", 0, max(0, sealed.find(b"\n--- ")))


def compress(plain: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(plain)


def new_compressor() -> zstandard.ZstdCompressor:
    """For `Frames`; one per thread."""
    parameters = zstandard.ZstdCompressionParameters.from_level(LEVEL, hash_log=HASH_LOG, write_content_size=True)
    return zstandard.ZstdCompressor(compression_params=parameters)


class Frames:
    """A text as zstd frames in the making, of bytes that come in pieces: of a long one, a frame for each PIECE.

    Of a long text only what is compressed is kept. Each frame is made in one call: where a frame grows piece by piece,
    zstd copies all into a ring and searches across its end, which takes a tenth to a fifth more of its time and makes
    nothing smaller (measured on rows as text and binary).
    """

    def __init__(self, compressor: zstandard.ZstdCompressor) -> None:
        self._compressor = compressor
        self._parts: list[bytes | memoryview] = []
        self._waiting = 0
        self._done: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        """Add plain bytes."""
        self._parts.append(data)
        self._waiting += len(data)
        if self._waiting >= PIECE:
            self._compress()

    def end(self) -> bytes:
        """All frames, one after the other: what any zstd unpacks as the text."""
        if self._waiting or not self._done:
            self._compress()
        return self._done[0] if len(self._done) == 1 else b"".join(self._done)

    def _compress(self) -> None:
        parts, self._parts, self._waiting = self._parts, [], 0
        text = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        size = -(-len(text) // max(1, len(text) // PIECE)) or 1  # from one PIECE to two each
        for at in range(0, len(text) or 1, size):  # an empty text is a frame too
            frame = self._compressor.compress(text[at : at + size])
            # A copy of the frame's own size: the library makes room for the worst, and gives back a hole behind it.
            self._done.append(bytes(memoryview(frame)))


def decompress(frames: bytes | memoryview, what: str, *, limit: int) -> Iterator[bytes]:
    """The content of all frames in pieces of at most 256 KiB. Raises Tampered beyond `limit` bytes or on damage."""
    total = 0
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True)
        while piece := reader.read(UNPACKED_PIECE):
            total += len(piece)
            if total > limit:
                raise Tampered(f"{what} unpacks to more than its record says", detail=f"more than {limit} bytes")
            yield piece
    except zstandard.ZstdError as error:
        raise Tampered(f"{what} is damaged", detail="its zstd frames do not decode") from error


_own = threading.local()


def unpack(frames: bytes | memoryview, what: str, into: memoryview) -> None:
    """The content of all frames, which must be exactly as long as `into`, in one go. Raises Tampered.

    For short lists and for what is worked on as a whole: an unpacker is made once for each thread.
    """
    unpacker: zstandard.ZstdDecompressor = _own.__dict__.get("unpacker") or zstandard.ZstdDecompressor()
    _own.unpacker = unpacker
    try:
        with unpacker.stream_reader(frames, read_across_frames=True) as reader:
            at = 0
            while at < len(into) and (count := reader.readinto(into[at:])):
                at += count
            more = reader.read(1)
    except zstandard.ZstdError as error:
        raise Tampered(f"{what} is damaged", detail="its zstd frames do not decode") from error
    if at != len(into) or more:
        length = f"{'more' if more else 'less'} than {len(into)} bytes"
        raise Tampered(f"{what} unpacks to {length.split()[0]} than its record says", detail=length)


def pack_record(payload: bytes | Iterable[bytes], recipients: Sequence[str]) -> bytes:
    """A record of the index class: zstd inside age. Long lists come in pieces."""
    return seal(compress(payload) if isinstance(payload, bytes) else _compress_stream(payload), recipients)


def _compress_stream(pieces: Iterable[bytes]) -> bytes:
    stream = new_compressor().compressobj()
    return b"".join((*map(stream.compress, _gathered(pieces)), stream.flush()))


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, some thousand at a time."""
    lines = iter(pieces)
    while some := b"".join(islice(lines, 4096)):
        yield some


# Records are small; a list grows with the database, yet never near this.
_RECORD_LIMIT = 4 * 1024 * 1024 * 1024


def unpack_record(body: bytes, secrets: Sequence[str], what: str) -> bytes:
    """The payload of a record of the index class."""
    return b"".join(decompress(unseal(body, secrets, what), what, limit=_RECORD_LIMIT))
