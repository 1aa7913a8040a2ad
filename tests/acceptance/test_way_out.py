"""The way out: an export loaded by psql alone, and the repository's own script with no Python in reach."""

import os
import shutil
from pathlib import Path

import psycopg
import pytest
from tests.support import compare, nasty
from tests.support.cli import Desk, command
from tests.support.psql import client
from tests.support.servers import binaries, needs, newest, server, versions
from tests.support.snapshot_scene import FEW_CONNECTIONS, Script, make_scene
from tests.support.supabase import APART, Standin
from tests.support.watching import AnonWatcher

from pgkura.core.access import resolve
from pgkura.core.outcome import Result

# what RESTORE.md promises to need, by the names of coreutils that the script may call
STOCK = (
    "bash", "age", "zstd", "cat", "chmod", "cut", "dirname", "head", "join", "ls", "mkdir", "mktemp", "mv", "nl", "rm",
    "sha256sum", "sort", "tail", "tr", "wc",
)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    """A PATH of stock tools only."""
    folder = tmp_path / "stock"
    folder.mkdir()
    for name in STOCK:
        found = shutil.which(name)
        needs(name, found is not None)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


# Large enough to be followed; rows of the first travel in binary form, those of the second as text.
FOLLOWED = """
CREATE TABLE public.followed (
    id int PRIMARY KEY, "a b" text, n numeric, made int NOT NULL GENERATED ALWAYS AS (id + 1) STORED, late int
);
CREATE TABLE public.followed_text (id int GENERATED ALWAYS AS IDENTITY, tags text[]);
INSERT INTO public.followed (id, "a b", n, late)
SELECT g, repeat(md5(g::text), 6), g / 7.0, CASE WHEN g % 50 <> 1 THEN g END FROM generate_series(1, 3000) g;
INSERT INTO public.followed_text (tags) SELECT ARRAY[repeat(md5(g::text), 6), E'\\\\ \t']
FROM generate_series(1, 3000) g;
"""
CHANGES = """
DELETE FROM public.followed WHERE id % 50 = 1;
ALTER TABLE public.followed ALTER late SET NOT NULL;
UPDATE public.followed SET n = NULL, "a b" = E'\\t' WHERE id % 60 = 2;
DELETE FROM public.followed_text WHERE id % 50 = 1;
UPDATE public.followed_text SET tags = NULL WHERE id % 60 = 2;
"""


def back_up_twice(desk: Desk, source: str) -> None:
    """A base, and a second snapshot in which rows of it are dropped."""
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(FOLLOWED.encode())
        desk.run("backup", env={"DATABASE_URL": source}).expect()
        connection.execute(CHANGES.encode())
    second = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    assert 0 < second["chunks_unchanged"] < second["chunks"]


def add_client(folder: Path, name: str, version: int) -> None:
    """psql or pg_restore: a wrapper, since the program finds its libraries beside itself."""
    wrapper = folder / name
    wrapper.write_text(f'#!{folder / "bash"}\nexec {client(name, version)} "$@"\n')
    wrapper.chmod(0o755)


@pytest.mark.parametrize("version", versions())
def test_export_loaded_by_psql_alone(version: int, desk: Desk, stock: Path, tmp_path: Path) -> None:
    """`psql -f load.sql` into a new database gives the source."""
    home = server(version)
    name = f"export_source_{home.version}"
    source = nasty.fill(home, name).url
    back_up_twice(desk, source)
    exported = desk.run("export", "latest", str(tmp_path / "out"), "--json").expect().json
    assert exported["result"] == "ok" and exported["rows"] > 0
    folder = tmp_path / "out"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.rglob("*"))
    target = home.create_database(f"export_target_{home.version}")
    add_client(stock, "psql", version)
    load = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target, "-f", str(folder / "load.sql")]
    command([str(stock / "bash"), "-c", '"$@"', "bash", *load], {"PATH": str(stock), "LC_ALL": "C.UTF-8"}).expect()
    compare.assert_same(source, target)
    proven = desk.run("verify", "latest", "--against", target, "--json").expect().json
    assert proven["proof"]["equal"] is True


@pytest.mark.parametrize("version", versions())
def test_the_repositorys_own_script(version: int, desk: Desk, stock: Path) -> None:
    """restore.sh needs no Python, and gives the source."""
    home = server(version)
    name = f"script_source_{home.version}"
    source = nasty.fill(home, name).url
    back_up_twice(desk, source)
    target = home.create_database(f"script_target_{home.version}")
    add_client(stock, "psql", version)
    add_client(stock, "pg_restore", version)
    environment = {"PATH": str(stock), "HOME": str(desk.folder), "TMPDIR": str(desk.folder)}
    assert shutil.which("python3", path=environment["PATH"]) is None
    script = [str(stock / "bash"), str(desk.repository / "restore.sh"), str(desk.identity), target]
    done = command(script, environment).expect()
    assert done.out.splitlines()[-1].startswith("done: ")
    assert not list(desk.folder.glob("tmp.*")), "clear text was left behind"
    compare.assert_same(source, target)
    proven = desk.run("verify", "latest", "--against", target, "--json").expect().json
    assert proven["proof"]["equal"] is True


def test_the_script_loads_the_columns_that_are_stored(stock: Path, tmp_path: Path) -> None:
    """Of a table that was altered while it was backed up; the other one takes its default."""
    home = newest()
    scene = make_scene(home.create_database("script_columns"), tmp_path / "repository")
    scene.sql(
        "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'none', more text)",
        r"INSERT INTO t SELECT g, 'note', E'a\tb\\' || g FROM generate_series(1, 100) g",
    )
    script = Script({"reading rows": lambda: scene.sql("ALTER TABLE t RENAME note TO remark")})
    taken = scene.take(script, connection_share=FEW_CONNECTIONS)
    assert taken.result is Result.INCOMPLETE
    (tmp_path / "identity").write_text(resolve(scene.identity))
    target = home.create_database("script_columns_back")
    add_client(stock, "psql", home.version)
    add_client(stock, "pg_restore", home.version)
    command(
        [str(stock / "bash"), str(tmp_path / "repository" / "restore.sh"), str(tmp_path / "identity"), target],
        {"PATH": str(stock), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    ).expect()
    with psycopg.connect(target) as back:
        rows = back.execute("SELECT id, more FROM t ORDER BY id").fetchall()
        assert back.execute("SELECT DISTINCT note FROM t").fetchall() == [("none",)]
    assert rows == scene.rows("SELECT id, more FROM t ORDER BY id")


def test_the_script_says_that_a_client_is_too_old(desk: Desk, stock: Path) -> None:
    """Before anything is changed, and with what to do."""
    needs("PostgreSQL 14 and a newer one", versions()[0] == 14 and len(versions()) > 1)
    home = server(versions()[-1])
    desk.run("backup", env={"DATABASE_URL": nasty.fill(home, "script_old_client").url}).expect()
    target = home.create_database("script_old_client_target")
    add_client(stock, "psql", 14)
    add_client(stock, "pg_restore", 14)
    script = [str(stock / "bash"), str(desk.repository / "restore.sh"), str(desk.identity), target]
    done = command(script, {"PATH": str(stock), "HOME": str(desk.folder), "TMPDIR": str(desk.folder)}).expect(1)
    assert "cannot read what this snapshot's newer pg_dump wrote: nothing was changed" in done.err
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE oid >= 16384").fetchone() == (0,)


@pytest.mark.parametrize(("version", "grants"), [(15, "old"), (17, "new")])
def test_the_script_into_a_fresh_hosted_project(version: int, grants: str, desk: Desk, stock: Path) -> None:
    """As the demoted `postgres`: what a restore gives, and anon never sees a row."""
    needs(f"PostgreSQL {version}", binaries(version) is not None)
    with Standin.start(version) as full, Standin.start(version, default_grants=grants) as fresh:
        full.fill_customer()
        desk.run("backup", env={"DATABASE_URL": full.url()}).expect()
        add_client(stock, "psql", version)
        add_client(stock, "pg_restore", version)
        environment = {"PATH": str(stock), "HOME": str(desk.folder), "TMPDIR": str(desk.folder)}
        script = [str(stock / "bash"), str(desk.repository / "restore.sh"), str(desk.identity), fresh.url()]
        with AnonWatcher(full, fresh) as watcher:
            done = command(script, environment).expect()
        assert done.out.splitlines()[-1].startswith("done: ") and done.err == ""
        assert watcher.seen == []
        compare.assert_same(full.admin_url, fresh.admin_url, ignore=APART)
        proof = desk.run("verify", "latest", "--against", fresh.url(), "--json").expect().json["proof"]
        assert proof["equal"] is True


def test_the_script_refuses_damage(desk: Desk, stock: Path) -> None:
    """A flipped bit in a file of rows: an error that names the file, never wrong rows."""
    home = server(versions()[-1])
    name = f"damaged_source_{home.version}"
    source = nasty.fill(home, name).url
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    for file in (desk.repository / "data").rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    target = home.create_database(f"damaged_target_{home.version}")
    for name in ("psql", "pg_restore"):
        add_client(stock, name, versions()[-1])
    environment = {"PATH": str(stock), "HOME": str(desk.folder), "TMPDIR": str(desk.folder)}
    script = [str(stock / "bash"), str(desk.repository / "restore.sh"), str(desk.identity), target]
    done = command(script, environment)
    assert done.code != 0 and "is damaged or missing" in done.err, done
    assert "data/" in done.err
    assert os.listdir(desk.folder).count("stock") == 1
