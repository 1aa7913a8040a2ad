"""Binary COPY rows as COPY text, for people and for files of SQL. Pure.

Only the types that travel in binary form (snapshot/queries/row_types.sql): numbers, text, bytes, uuid, dates and times,
json, and enums, whose binary form is their label. Sources: the send functions of PostgreSQL (numeric.c, datetime.c,
date.c, timestamp.c, uuid.c, jsonb.c). Values read back the same; they need not be spelled as the server spells them.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

_ESCAPES = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})
_EPOCH_JULIAN = 2451545  # 2000-01-01
_DAY = 86_400_000_000
_INFINITE_DATES = {0x7FFFFFFF: "infinity", -0x80000000: "-infinity"}
_INFINITE_TIMES = {0x7FFFFFFFFFFFFFFF: "infinity", -0x8000000000000000: "-infinity"}
_NUMERIC_SIGNS = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}

Decoder = Callable[[bytes], str]


def copy_text(rows: bytes, sizes: Iterable[int], types: Sequence[str]) -> Iterator[bytes]:
    """Lines of COPY text. `types`: of the columns, as format_type names them with an empty search_path."""
    decoders = [decoder(t) for t in types]
    at = 0
    for size in sizes:
        yield "\t".join(_values(rows[at : at + size], decoders)).encode() + b"\n"
        at += size


def _values(row: bytes, decoders: Sequence[Decoder]) -> Iterator[str]:
    at = 2
    for decode in decoders:
        (length,) = struct.unpack_from(">i", row, at)
        at += 4
        if length < 0:
            yield "\\N"
            continue
        yield decode(row[at : at + length])
        at += length


def decoder(type_name: str) -> Decoder:
    """By the name of a type; what is not built in is an enum, whose value is its label."""
    plain = type_name.split("(")[0]
    if "." in plain or type_name.startswith('"'):
        return _text
    if plain.startswith("timestamp"):
        return _timestamptz if type_name.endswith("with time zone") else _timestamp
    return _DECODERS.get(plain, _text)


def _text(value: bytes) -> str:
    return value.decode().translate(_ESCAPES)


def _integer(value: bytes) -> str:
    return str(int.from_bytes(value, "big", signed=True))


def _float4(value: bytes) -> str:
    return str(np.frombuffer(value, ">f4")[0])


def _float8(value: bytes) -> str:
    return repr(struct.unpack(">d", value)[0])


def _bytea(value: bytes) -> str:
    return "\\\\x" + value.hex()


def _uuid(value: bytes) -> str:
    text = value.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _numeric(value: bytes) -> str:
    """Base 10000 digits, the weight of the first, the sign, and how many decimals are shown."""
    count, weight, sign, scale = struct.unpack_from(">hhHh", value)
    if sign in _NUMERIC_SIGNS:
        return _NUMERIC_SIGNS[sign]
    digits = struct.unpack_from(f">{count}h", value, 8)

    def group(place: int) -> int:
        return digits[place] if 0 <= place < count else 0

    whole = "".join(f"{group(i):04d}" for i in range(max(weight, 0) + 1)) if weight >= 0 else "0"
    decimals = "".join(f"{group(weight + 1 + i):04d}" for i in range((scale + 3) // 4))[:scale]
    return ("-" if sign == 0x4000 else "") + (whole.lstrip("0") or "0") + (f".{decimals}" if scale else "")


def _date(value: bytes) -> str:
    (days,) = struct.unpack(">i", value)
    return _INFINITE_DATES.get(days) or _calendar(days, "")


def _timestamp(value: bytes) -> str:
    (micros,) = struct.unpack(">q", value)
    return _INFINITE_TIMES.get(micros) or _moment(micros, "")


def _timestamptz(value: bytes) -> str:
    (micros,) = struct.unpack(">q", value)
    return _INFINITE_TIMES.get(micros) or _moment(micros, "+00")


def _moment(micros: int, zone: str) -> str:
    days, rest = divmod(micros, _DAY)
    seconds, fraction = divmod(rest, 1_000_000)
    clock = f" {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return _calendar(days, clock + (f".{fraction:06d}".rstrip("0") if fraction else "") + zone)


def _calendar(days: int, clock: str) -> str:
    """Days since 2000-01-01 in the proleptic Gregorian calendar (Richards' algorithm), years before 1 as BC."""
    f = days + _EPOCH_JULIAN + 1401 + (4 * (days + _EPOCH_JULIAN) + 274277) // 146097 * 3 // 4 - 38
    e = 4 * f + 3
    h = 5 * (e % 1461 // 4) + 2
    day = h % 153 // 5 + 1
    month = (h // 153 + 2) % 12 + 1
    year = e // 1461 - 4716 + (14 - month) // 12
    shown = year if year > 0 else 1 - year
    return f"{shown:04d}-{month:02d}-{day:02d}{clock}" + ("" if year > 0 else " BC")


_DECODERS: dict[str, Decoder] = {
    "boolean": lambda value: "t" if value == b"\x01" else "f",
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
    "real": _float4,
    "double precision": _float8,
    "numeric": _numeric,
    "bytea": _bytea,
    "uuid": _uuid,
    "date": _date,
    "json": _text,
    "jsonb": lambda value: _text(value[1:]),
}
