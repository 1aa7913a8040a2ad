"""What happens to whole tables between two snapshots: VACUUM, rewrites, other columns and types, moved tables."""

from tests.support.history_steps import Scenery, Step, burn_xids, large_objects, work

_MAINTAINED = ("wide", "heap", "counter", "nopk", "kinds", "parts", "swap_a", "mother")
_REWRITTEN = ("wide", "heap", "counter", "kinds", "swap_b", "part_1", "names")


def vacuum(world: Scenery) -> None:
    """As far as open transactions let it."""
    how = world.rng.choice(("", "(FREEZE)", "(FREEZE)", "(ANALYZE)", "(TRUNCATE off)", "(DISABLE_PAGE_SKIPPING)"))
    world.sessions.alone(f"VACUUM {how} {world.rng.choice(_MAINTAINED)}")


def reuse(world: Scenery) -> None:
    """Nobody holds VACUUM back, and the places of dead rows are taken at once by others."""
    world.sessions.end_all()
    table = world.rng.choice(("heap", "wide", "nopk", "counter", "swap_a"))
    modulus = world.rng.choice((2, 3, 11))
    world.sessions.alone(f"DELETE FROM {table} WHERE id % {modulus} = 0")
    world.sessions.alone(f"VACUUM {world.rng.choice(('', '(FREEZE)'))} {table}")
    world.sessions.alone(
        f"INSERT INTO {table} (id, note) SELECT g * {modulus}, '{world.fresh('r')}' FROM {world.ids(25)}"
    )


def truncate(world: Scenery) -> None:
    """TRUNCATE for good or in vain, then the same number of rows in the same places."""
    table = world.rng.choice(("heap", "nopk", "swap_a", "part_1"))
    rows = world.ids(world.rng.choice((0, 40, 500)))
    refill = f"INSERT INTO {table} (id, note) SELECT g, '{world.fresh('t')}' FROM {rows}"
    if world.rng.random() < 0.3:
        world.sessions.alone(f"TRUNCATE {table}", refill, "ROLLBACK", "BEGIN")
    else:
        world.sessions.alone(f"TRUNCATE {table}", refill)


def load_frozen(world: Scenery) -> None:
    """Frozen at birth, as a restore does it: old snapshots may see these rows, and their xmin says nothing."""
    lines = "".join(f"{world.next_id + i}\t{world.fresh('z')}\tloaded\n" for i in range(60))
    world.next_id += 60
    world.sessions.end_all()
    name = "A"
    connection = world.sessions.connections[name]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("TRUNCATE heap")
        with cursor.copy("COPY heap (id, note, body) FROM STDIN (FREEZE)") as copy:
            copy.write(lines)
    world.sessions.story.append("A: BEGIN; TRUNCATE heap; COPY heap FROM STDIN (FREEZE) 60 rows; COMMIT")


def rewrite(world: Scenery) -> None:
    """The same rows in another file."""
    table = world.rng.choice(_REWRITTEN)
    if world.rng.random() < 0.5:
        world.sessions.alone(f"DELETE FROM {table} WHERE id % 9 = {world.rng.randrange(9)}")
    world.sessions.alone(
        world.rng.choice(
            (
                f"VACUUM (FULL) {table}",
                f"VACUUM (FULL, FREEZE) {table}",
                "CLUSTER wide USING wide_pkey",
                f"ALTER TABLE {table} ADD COLUMN gone uuid DEFAULT gen_random_uuid(), DROP COLUMN gone",
                "ALTER TABLE fleeting SET LOGGED",
                "ALTER TABLE fleeting SET UNLOGGED",
                "ALTER TABLE counter ALTER COLUMN hits TYPE bigint USING hits * 10",
            )
        )
    )


def add_column(world: Scenery) -> None:
    """A default that no row holds."""
    table = world.rng.choice(("wide", "heap", "counter", "nopk", "kinds", "parts", "mother", "fleeting", "shape"))
    column = world.fresh("c")
    default = world.rng.choice(
        (f"int DEFAULT {world.number}", f"text DEFAULT '{column}'", "text", f"mood DEFAULT '{world.labels[0]}'")
    )
    if table == "shape":
        default = "text"  # its row type is a column's: a default would have to be written there
    if world.sessions.alone(f"ALTER TABLE {table} ADD COLUMN {column} {default}"):
        world.added.setdefault(table, []).append(column)


def drop_column(world: Scenery) -> None:
    """No tuple changes, and perhaps another column takes the name at once."""
    table = world.rng.choice(sorted(world.added) or ["wide"])
    columns = world.added.get(table, [])
    if not columns:
        return
    column = columns.pop(world.rng.randrange(len(columns)))
    again = f"ALTER TABLE {table} ADD COLUMN {column} text" + ("" if table == "shape" else " DEFAULT 'again'")
    if world.rng.random() < 0.5 and world.sessions.alone(f"ALTER TABLE {table} DROP COLUMN {column}", again):
        columns.append(column)
    else:
        world.sessions.alone(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {column}")


def change_column(world: Scenery) -> None:
    """Types with and without a rewrite, names exchanged, settings."""
    world.sessions.alone(
        *world.rng.choice(
            (
                ("ALTER TABLE kinds ALTER COLUMN t TYPE timestamptz",),
                ("ALTER TABLE kinds ALTER COLUMN t TYPE timestamp",),
                ("ALTER TABLE wide ALTER COLUMN note TYPE varchar(60)",),
                ("ALTER TABLE wide ALTER COLUMN note TYPE text",),
                ("ALTER TABLE nopk ALTER COLUMN id TYPE bigint",),
                ("ALTER TABLE nopk ALTER COLUMN id TYPE int",),
                (
                    "ALTER TABLE heap RENAME note TO n",
                    "ALTER TABLE heap RENAME body TO note",
                    "ALTER TABLE heap RENAME n TO body",
                ),
                ("ALTER TABLE wide ALTER COLUMN note SET DEFAULT 'other'",),
                ("ALTER TABLE names ALTER COLUMN note SET NOT NULL",),
                (
                    "ALTER DOMAIN positive DROP CONSTRAINT positive_check",
                    "ALTER DOMAIN positive ADD CONSTRAINT positive_check CHECK (VALUE > 0)"),
            )
        )
    )  # fmt: skip


def change_type(world: Scenery) -> None:
    """Text changes and no tuple does: labels, members, the names that reg* values print."""
    dice = world.rng.random()
    if dice < 0.35:
        old, new = world.rng.choice(world.labels), world.fresh("m")
        if world.sessions.alone(f"ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'"):
            world.labels[world.labels.index(old)] = new
    elif dice < 0.5:
        label = world.fresh("m")
        if world.sessions.alone(f"ALTER TYPE mood ADD VALUE '{label}' BEFORE '{world.labels[-1]}'"):
            world.labels.append(label)
    elif dice < 0.65:
        world.sessions.alone(f"ALTER TYPE pair ADD ATTRIBUTE {world.fresh('a')} int CASCADE")
    elif dice < 0.75:
        world.sessions.alone(
            f"ALTER FUNCTION named(int) RENAME TO {world.fresh('f')}",
            "CREATE FUNCTION named(int) RETURNS int LANGUAGE sql AS 'SELECT $1'",
        )
    else:
        away = "other" if world.home == "public" else "public"
        if world.sessions.alone(f"ALTER TABLE {world.home}.small SET SCHEMA {away}"):
            world.home = away


def move(world: Scenery) -> None:
    """Tables change places, or leave a tree, or come back."""
    dice = world.rng.random()
    if dice < 0.4:
        world.sessions.alone(
            "ALTER TABLE swap_a RENAME TO swap_c",
            "ALTER TABLE swap_b RENAME TO swap_a",
            "ALTER TABLE swap_c RENAME TO swap_b",
        )
    elif not world.detached:
        world.detached = world.sessions.alone("ALTER TABLE parts DETACH PARTITION part_2")
    else:
        world.detached = not world.sessions.alone(
            "UPDATE part_2 SET region = 15",
            "DELETE FROM part_rest WHERE region BETWEEN 10 AND 19",
            "ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20)",
        )


def make(world: Scenery) -> None:
    """A new table, or one fewer."""
    if world.made and world.rng.random() < 0.5:
        world.sessions.alone(f"DROP TABLE {world.made.pop(0)}")
        return
    name = world.fresh("made")
    if world.sessions.alone(f"CREATE TABLE {name} AS SELECT g AS id, 'n' AS note FROM generate_series(1, 30) g"):
        world.made.append(name)


WHOLE: tuple[tuple[Step, int], ...] = (
    (vacuum, 14), (reuse, 6), (truncate, 5), (load_frozen, 2), (rewrite, 10), (add_column, 5), (drop_column, 4),
    (change_column, 5), (change_type, 5), (move, 5), (make, 3), (large_objects, 4), (burn_xids, 5),
)  # fmt: skip
ALL: tuple[tuple[Step, int], ...] = ((work, 150), *WHOLE)
# What leaves columns, types and files as they are.
PLAIN = ((work, 150), (vacuum, 14), (reuse, 6), (burn_xids, 5))


def step(world: Scenery, among: tuple[tuple[Step, int], ...] = ALL) -> None:
    """One of them."""
    among = PLAIN if world.plain else among
    steps, weights = zip(*among, strict=True)
    chosen: Step = world.rng.choices(steps, weights)[0]
    chosen(world)
