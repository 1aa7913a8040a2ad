"""A second reader of rows of binary COPY, for the independent reader: written from PostgreSQL's documentation alone.

It prints COPY text as a server does under the settings of docs/formats/repository.md. Dates are counted in days from
2000-01-01 by the calendar's own rules of 400, 100, 4 years and one: no part of the product's arithmetic.
"""

import struct
import uuid
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, localcontext

SECOND = 1_000_000
DAY = 86400 * SECOND


def tuples(chunk: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """The tuples, cut by their sizes."""
    assert sum(sizes) == len(chunk)
    at = 0
    for size in sizes:
        yield chunk[at : at + size]
        at += size


def text_line(row: bytes, types: Sequence[str]) -> bytes:
    """One tuple as a line of COPY text; its own lengths must end where it ends."""
    (count,) = struct.unpack_from(">h", row)
    assert count == len(types)
    at, fields = 2, []
    for name in types:
        (length,) = struct.unpack_from(">i", row, at)
        at += 4
        if length == -1:
            fields.append("\\N")
            continue
        fields.append(escaped(value(row[at : at + length], name)))
        at += length
    assert at == len(row)
    return "\t".join(fields).encode() + b"\n"


def escaped(text: str) -> str:
    """As COPY escapes."""
    for plain, shown in ("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"), ("\b", "\\b"):
        text = text.replace(plain, shown)
    return text


def value(data: bytes, type_name: str) -> str:
    """A value as its output function prints it. `type_name` as format_type() says; unknown names are enums."""
    match type_name.split("(")[0]:
        case "boolean":
            return {b"\0": "f", b"\1": "t"}[data]
        case "smallint" | "integer" | "bigint":
            return str(int.from_bytes(data, "big", signed=True))
        case "real" | "double precision":
            (number,) = struct.unpack(">f" if len(data) == 4 else ">d", data)
            return repr(number).removesuffix(".0")  # the vectors hold only numbers that need no more than this
        case "numeric":
            return numeric(data)
        case "bytea":
            return "\\x" + data.hex()
        case "uuid":
            return str(uuid.UUID(bytes=data))
        case "date":
            (days,) = struct.unpack(">i", data)
            if abs(days) >= 2**31 - 1:
                return "infinity" if days > 0 else "-infinity"
            day, era = calendar(days)
            return day + era
        case "timestamp without time zone" | "timestamp with time zone" | "timestamp":
            return moment(data, "+00" if type_name.endswith("with time zone") else "")
        case "jsonb":
            assert data[0] == 1
            return data[1:].decode()
        case _:
            return data.decode()


def numeric(data: bytes) -> str:
    """Digits of base 10000, the first of weight `weight`."""
    count, weight, sign, scale = struct.unpack_from(">hhHH", data)
    if sign in (0xC000, 0xD000, 0xF000):
        return {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[sign]
    digits = enumerate(struct.unpack_from(f">{count}h", data, 8))
    with localcontext(Context(prec=1000)):
        total = sum((Decimal(digit).scaleb(4 * (weight - place)) for place, digit in digits), Decimal(0))
        return f"{'-' if sign == 0x4000 else ''}{total:.{scale}f}"


def moment(data: bytes, zone: str) -> str:
    """Microseconds since 2000-01-01."""
    (micros,) = struct.unpack(">q", data)
    if micros in (2**63 - 1, -(2**63)):
        return "infinity" if micros > 0 else "-infinity"
    day, era = calendar(micros // DAY)
    seconds, fraction = divmod(micros % DAY, SECOND)
    clock = f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"
    shown = f".{fraction:06}".rstrip("0") if fraction else ""
    return f"{day} {clock}{shown}{zone}{era}"


def leap(year: int) -> bool:
    """By the Gregorian rule, also before it was made; the year before 1 is 0."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def calendar(days: int) -> tuple[str, str]:
    """YYYY-MM-DD, and ' BC' for years before 1."""
    cycles, days = divmod(days, 146097)  # of 400 years
    year = 2000 + 400 * cycles
    while days >= 365 + leap(year):
        days -= 365 + leap(year)
        year += 1
    months = (31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    month = 0
    while days >= months[month]:
        days -= months[month]
        month += 1
    return f"{year if year > 0 else 1 - year:04}-{month + 1:02}-{days + 1:02}", "" if year > 0 else " BC"
