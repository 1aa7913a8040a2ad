"""What of a base can be carried over a change of definitions: rows of one snapshot into the definitions of a later one.

No statement of anybody's is executed again: the later snapshot has the definitions, exactly those of the moment by its
fingerprint. What is left is which columns the rows had and have. A table that was rewritten, or whose beginning is in
no log, cannot be carried; then the moment is refused. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pgkura.catalog.inventory import Items
from pgkura.changes.covers import Cover
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.forms import Form
from pgkura.postgres.parts import Part
from pgkura.repository.lists import BLOBS, TableData


class CannotCarry(Exception):
    """Why, in words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Altered:
    """A table that was altered, or made. Columns by their numbers, those that travel only.

    old  number and name; none for one that was made
    new  number, name, and what rows have there that are older than the column
    """

    name: str
    old: tuple[tuple[int, str], ...]
    new: tuple[tuple[int, str, str | None], ...]

    def form(self, names: Sequence[str]) -> Form:
        """Of rows with these columns, in the order of their numbers. Raises CannotCarry where that is not clear."""
        numbers = [self._number(name) for name in names]
        lasting = {n for n, _ in self.old} & {n for n, _, _ in self.new}
        if numbers != sorted(set(numbers)) or not lasting <= set(numbers):
            raise CannotCarry(f"{self.name} had another form for a while")
        place = {number: at for at, number in enumerate(numbers)}
        return Form(
            columns=tuple(
                (name, place.get(number), None if number in place else value) for number, name, value in self.new
            ),
            width=len(names),
        )

    def _number(self, name: str) -> int:
        found = {n for n, one in self.old if one == name} | {n for n, one, _ in self.new if one == name}
        if len(found) != 1:
            raise CannotCarry(f"{self.name} had another form for a while")
        return found.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrying:
    """Rows of the old snapshot in the definitions of the new one.

    altered  tables that were altered or made, by object id; forms: of the old snapshot's rows, by object id
    made     object ids of relations that are newer than the old snapshot
    places   of tables in the old facts, by their place in the new ones
    """

    altered: Mapping[int, Altered]
    forms: Mapping[int, Form]
    made: frozenset[int]
    places: Mapping[int, int]


def carry(old: SourceFacts, new: SourceFacts, before: Cover, after: Cover) -> Carrying:
    """`before` and `after` are the covers of the two shapes; `after` with its sealed values. Raises CannotCarry."""
    if before.parts is None or after.parts is None:
        raise CannotCarry("the log was written by a watcher that did not note the shape of each table")
    if before.parts.types != after.parts.types:
        raise CannotCarry("labels of an enum or attributes of a composite type were changed")
    known = {t.oid: place for place, t in enumerate(old.tables)}
    altered: dict[int, Altered] = {}
    made: set[int] = set()
    places: dict[int, int] = {}
    for place, table in enumerate(new.tables):
        was = known.get(table.oid)
        one, other = before.parts.tables.get(table.oid), after.parts.tables.get(table.oid)
        if was is None:
            made.add(table.oid)
            if table.kind == "r":
                altered[table.oid] = _made(table, other, after)
            continue
        places[place] = was
        if table.kind != "r" or (one is not None and other is not None and one.whole == other.whole):
            continue
        if one is None or other is None or one.key != other.key or not _logged(old.tables[was], before):
            raise CannotCarry(f"{table.qname} was altered, and is not in the log throughout")
        if table.load_root or table.config_of or table.managed:
            raise CannotCarry(f"{table.qname} was altered, and is no plain table")
        altered[table.oid] = _altered(old.tables[was], table, one, other, after.parts.missing)
    forms = {oid: one.form([name for _, name in one.old]) for oid, one in altered.items() if oid not in made}
    return Carrying(altered=altered, forms=forms, made=frozenset(made), places=places)


def _logged(table: TableFacts, cover: Cover) -> bool:
    return cover.tables.get(table.qname, ("", "unknown"))[1] == ""


def _made(table: TableFacts, part: Part | None, after: Cover) -> Altered:
    if part is None or not _logged(table, after) or table.oid not in after.empty:
        raise CannotCarry(f"{table.qname} was made, and its beginning is not in the log")
    if part.natts != len(table.columns):
        raise CannotCarry(f"{table.qname} had columns for a while that it has no more")
    missing = after.parts.missing if after.parts is not None else {}
    new = tuple((c.attnum, c.name, missing.get((table.oid, c.attnum))) for c in table.data_columns)
    return Altered(name=str(table.qname), old=(), new=new)


def _altered(
    old: TableFacts, new: TableFacts, before: Part, after: Part, missing: Mapping[tuple[int, int], str]
) -> Altered:
    if old.filenode != after.filenode or old.persistence != new.persistence:
        raise CannotCarry(f"{new.qname} was altered, and rewritten or emptied")
    was = {c.attnum: c for c in old.columns}
    # A number that is used up and gone again could have had rows of another meaning.
    if [c.attnum for c in new.columns if c.attnum not in was] != list(range(before.natts + 1, after.natts + 1)):
        raise CannotCarry(f"{new.qname} had columns for a while that it has no more")
    columns: list[tuple[int, str, str | None]] = []
    for column in new.data_columns:
        one = was.get(column.attnum)
        value = missing.get((new.oid, column.attnum)) if one is None else None
        if one is not None and (one.type, one.generated) != (column.type, column.generated):
            raise CannotCarry(f"a column of {new.qname} got another type")
        if column.not_null and value is None and (one is None or not one.not_null):
            raise CannotCarry(f"a column of {new.qname} must not be NULL any more")
        columns.append((column.attnum, column.name, value))
    was_at = {c.name: c.attnum for c in old.data_columns}
    # Rows of between could have either: which one, no name tells.
    if any(was_at.get(name, number) != number for number, name, _ in columns):
        raise CannotCarry(f"columns of {new.qname} were replaced by others of the same names")
    return Altered(name=str(new.qname), old=tuple((n, name) for name, n in was_at.items()), new=tuple(columns))


def carried_data(
    carrying: Carrying, new: SourceFacts, rows: Sequence[TableData], rest: Sequence[TableData]
) -> list[TableData]:
    """Whose rows are loaded: those of the old list under the numbers of the new one; large objects as the new one has
    them. A table that is newer has none yet. Columns are those that the rows come to have (a base has all of them)."""
    by_number = {data.number: data for data in rows}
    there = {data.number: data for data in rest}
    made = [there[BLOBS]] if BLOBS in there else []
    for place, table in enumerate(new.tables):
        was = carrying.places.get(place)
        data = by_number.get(was) if was is not None else None
        if data is not None and table.oid in carrying.forms:
            name = table.qname.sql
            made.append(replace(data, number=place, name=name, columns=table.column_list, target=name))
        elif data is not None:
            made.append(replace(data, number=place, columns=table.column_list))
        elif place in there:
            made.append(replace(there[place], rows=0, bytes=0, layers=()))
    return made


def check_constraints(carrying: Carrying, old: SourceFacts, new: SourceFacts, before: Items, after: Items) -> None:
    """Rows of the old snapshot come first, and must not be refused by what was made to hold since.

    Raises CannotCarry. What only new tables must obey does not matter: they begin empty.
    """
    names = {
        _plain(str(old.tables[was].qname)): _plain(str(new.tables[at].qname)) for at, was in carrying.places.items()
    }
    fresh = {_plain(str(t.qname)) for t in new.tables if t.oid in carrying.made}
    known = {(names.get(of, of), what) for of, what in _strict(before)}
    for of, what in _strict(after):
        if of not in fresh and (of, what) not in known:
            raise CannotCarry(f"{of or 'a domain'} has a constraint that is newer: {what}")


def _strict(items: Items) -> Iterator[tuple[str, str]]:
    """(table, definition) of whatever may refuse a row."""
    for (cls, _), item in items.items():
        text = str(item.get("definition", ""))
        if cls == "constraint" and not text.startswith("FOREIGN KEY"):
            yield _plain(str(item["of"] or "")), text
        elif cls == "index" and text.startswith("CREATE UNIQUE"):
            yield _plain(str(item["of"])), text.partition(" USING ")[2]


def _plain(name: str) -> str:
    return name.replace('"', "")
