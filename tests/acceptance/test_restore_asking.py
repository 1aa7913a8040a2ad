"""What a restore asks and shows before it writes: the question on a terminal, the exact plan, switches, waivers."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk
from tests.support.psql import with_user
from tests.support.servers import Server, newest

SOURCE = """
CREATE TYPE public.mood AS ENUM ('low', 'high');
CREATE TABLE public.lessons (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, mood public.mood);
INSERT INTO public.lessons (title) SELECT 'lesson ' || g FROM generate_series(1, 300) g;
CREATE INDEX lessons_title ON public.lessons (title);
CREATE VIEW public.titles AS SELECT title FROM public.lessons;
CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.lessons;
CREATE FUNCTION public.one() RETURNS integer LANGUAGE sql AS 'SELECT 1';
ALTER TABLE public.lessons ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON public.lessons USING (true);
GRANT SELECT ON public.lessons TO PUBLIC;
"""
STANDING = "CREATE TABLE public.standing (id integer); INSERT INTO public.standing VALUES (1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A backup of a small database, and a server to restore on."""

    desk: Desk
    server: Server
    source: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Made once; nothing here changes the repository."""
    home = newest()
    source = home.create_database("asking_source")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(SOURCE.encode())
    desk = Desk(tmp_path_factory.mktemp("asking"))
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    yield Scene(desk=desk, server=home, source=source)
    for name in ("asking_source", "asking_target"):
        home.drop_database(name)


@pytest.fixture
def standing(scene: Scene) -> str:
    """A target that holds something already: only then is anything asked."""
    target = scene.server.create_database("asking_target")
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(STANDING.encode())
    return target


def on_a_terminal(desk: Desk, arguments: tuple[str, ...], answer: str, before: Callable[[], None]) -> tuple[int, str]:
    """Run with a terminal on all three streams; when it asks, do `before`, then type the answer."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "pgkura", *arguments],
        env=desk.environment | {"TERM": "xterm", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said, answered, deadline = "", False, time.monotonic() + 60
    with child:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            said += piece.decode(errors="replace")
            if not answered and "[y/N]" in said:
                answered = True
                before()
                os.write(ours, f"{answer}\n".encode())
        os.close(ours)
        code = child.wait(timeout=30)
    assert answered, f"it never asked: exit {code}\n{said}"
    return code, said


def nothing() -> None:
    """The world does not move."""


@pytest.mark.parametrize("answer", ["n", "no", ""])
def test_no_touches_nothing(answer: str, scene: Scene, standing: str) -> None:
    """A no, or just the return key: exit 21, the target is as it was."""
    before = compare.schema_dump(standing)
    arguments = ("restore", "latest", "--to", standing, "--allow-non-empty")
    code, said = on_a_terminal(scene.desk, arguments, answer, nothing)
    assert code == 21 and "nothing was touched" in said, (code, said)
    assert "asking_target, which is not empty?" in said
    assert compare.schema_dump(standing) == before


def test_yes_restores(scene: Scene, standing: str) -> None:
    """A yes restores beside what is there."""
    arguments = ("restore", "latest", "--to", standing, "--allow-non-empty")
    code, said = on_a_terminal(scene.desk, arguments, "y", nothing)
    assert "Traceback" not in said and "restored to" in said, (code, said)
    with psycopg.connect(standing) as connection:
        assert connection.execute("SELECT count(*) FROM public.lessons").fetchone() == (300,)
        assert connection.execute("SELECT count(*) FROM public.standing").fetchone() == (1,)


def test_a_plan_that_is_outdated_is_not_executed(scene: Scene, standing: str) -> None:
    """Somebody makes a table between the question and the yes: exit 22, nothing of ours was written."""

    def meanwhile() -> None:
        with psycopg.connect(standing, autocommit=True) as connection:
            connection.execute("CREATE TABLE public.came_between (id integer)")

    arguments = ("restore", "latest", "--to", standing, "--allow-non-empty")
    code, said = on_a_terminal(scene.desk, arguments, "y", meanwhile)
    assert code == 22 and "changed since the plan was made" in said, (code, said)
    with psycopg.connect(standing) as connection:
        names = connection.execute("SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert {n for (n,) in names} == {"standing", "came_between"}
        assert connection.execute("SELECT to_regnamespace('pgkura_restore')").fetchone() == (None,)


def test_the_exact_plan(scene: Scene) -> None:
    """Each object with what is done to it, in the order of doing; the short form says how to see that."""
    target = scene.server.create_database("asking_target")
    plan = scene.desk.run("restore", "--to", target, "--dry-run", "--json").expect().json
    steps = [(s["action"], s["object"]) for s in plan["steps"]]
    for wanted in (
        ("create", 'type "public"."mood"'),
        ("create", 'relation "public"."lessons"'),
        ("load", 'table "public"."lessons"'),
        ("create", 'index "public"."lessons_title"'),
        ("create", 'policy "everybody" on "public"."lessons"'),
        ("fill", 'relation "public"."counted"'),
    ):
        assert wanted in steps, (wanted, steps)
    assert any(action == "set to 300" for action, _ in steps)
    assert any(action == "grant" for action, _ in steps)
    order = [steps.index(w) for w in (steps[0], ("load", 'table "public"."lessons"'), steps[-1])]
    assert order == sorted(order)
    load = next(s for s in plan["steps"] if s["action"] == "load")
    assert load["rows"] == 300 and load["bytes"] > 0
    counted = sum(s["objects"] for s in plan["stages"])
    assert len(steps) >= counted > 0

    short = scene.desk.run("restore", "--to", target, "--dry-run").expect().out
    assert "lessons_title" not in short and f"{len(steps)} steps: --verbose (-v) or --json" in short
    for flag in ("--verbose", "-v"):
        long = scene.desk.run("restore", "--to", target, "--dry-run", flag).expect().out
        assert all(name in long for _, name in steps)


@pytest.mark.parametrize("verb", ["restore", "release"])
def test_a_misspelt_dry_run_is_refused_beside_the_flag_too(verb: str, scene: Scene) -> None:
    """The flag does not hide that the variable means nothing."""
    target = scene.server.create_database("asking_target")
    done = scene.desk.run(verb, "--to", target, "--dry-run", env={"DRY_RUN": "banana"}).expect(2)
    assert "DRY_RUN" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "latest", "--to", "", "--yes"),
        ("restore", "latest", "--to", "  ", "--yes"),
        ("release", "--to", ""),
        ("verify", "latest", "--against", ""),
        ("backup", "--database", ""),
        ("doctor", "--database", ""),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_blank_url_never_means_another_one(arguments: tuple[str, ...], scene: Scene) -> None:
    """`--to "$UNSET"` is an error; DATABASE_URL is not taken in its place."""
    target = scene.server.create_database("asking_target")
    before = compare.schema_dump(target)
    done = scene.desk.run(*arguments, env={"DATABASE_URL": target}).expect(2)
    assert "blank" in done.err
    assert compare.schema_dump(target) == before


def test_a_waiver_of_nothing_is_told(scene: Scene, tmp_path: Path) -> None:
    """A misspelt `--accept` is named, in words and in JSON; a right one is not, and holds for its own run only."""
    with psycopg.connect(scene.source, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS asking_owner, asking_reader")
        connection.execute("CREATE ROLE asking_owner LOGIN PASSWORD 'own' BYPASSRLS")
        connection.execute("CREATE ROLE asking_reader LOGIN PASSWORD 'read'")
        connection.execute("GRANT SELECT ON public.lessons TO asking_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO asking_owner")
        connection.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO asking_owner")
    poor = with_user(scene.source, "asking_owner", "own")
    desk = Desk(tmp_path)
    desk.run("init").expect()
    told = desk.run("backup", "--json", env={"DATABASE_URL": poor}).expect(3).json
    denied = [f["object"] for f in told["skipped"] if f["class"] == "denied"]
    assert denied and told["accepted_unused"] == []
    waivers = [word for name in denied for word in ("--accept", name)]
    typo = denied[0].upper()
    some = desk.run("backup", "--json", *waivers, "--accept", typo, env={"DATABASE_URL": poor}).expect().json
    assert some["accepted_unused"] == [typo] and set(denied) <= set(some["accepted"])
    words = desk.run("backup", *waivers, "--accept", typo, env={"DATABASE_URL": poor}).expect().out
    assert f"--accept {typo!r} waived nothing" in words
    desk.run("backup", env={"DATABASE_URL": poor}).expect(3)

    target = scene.server.create_database("asking_target")
    restored = desk.run("restore", some["snapshot"], "--to", target, "--accept", typo, "--json").expect().json
    assert restored["accepted_unused"] == [typo] and set(denied) <= set(restored["accepted"])
    proof = desk.run("verify", some["snapshot"], "--against", target, "--accept", typo, "--json").expect().json
    assert proof["accepted_unused"] == [typo]
    with psycopg.connect(scene.source, autocommit=True) as connection:
        scene.server.drop_database("asking_target")
        connection.execute("DROP OWNED BY asking_owner, asking_reader")
        connection.execute("DROP ROLE asking_owner, asking_reader")
