"""An application that changes several tables in one transaction is never the victim of a deadlock with us."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, Script, make_scene

from pgkura.core.errors import SourceBusy, ToolError
from pgkura.core.outcome import Result
from pgkura.programs.pgtools import find_client

CLIENTS, TABLES = 3, 12
DEADLOCK = "40P01"


class Truncating:
    """Clients with tables of their own: none ever stands in another's way, and whatever deadlocks does so with us."""

    def __init__(self, scene: Scene, *, views: bool) -> None:
        self._scene = scene
        self._views = views
        self._ended = threading.Event()
        self.done: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> "Truncating":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        dice = random.Random(client)
        with psycopg.connect(self._scene.url, application_name="application") as connection:
            while not self._ended.is_set():
                try:
                    for table in dice.sample(range(TABLES), 5):
                        name = f"t{client}_{table}"
                        connection.execute(self._change(dice, name).encode())
                        time.sleep(dice.uniform(0, 0.03))
                    connection.commit()
                    self.done["ok"] += 1
                except psycopg.Error as error:
                    connection.rollback()
                    self.done[error.sqlstate or str(error)] += 1
                time.sleep(dice.uniform(0, 0.2))

    def _change(self, dice: random.Random, name: str) -> str:
        changes = [
            f"TRUNCATE {name}",
            f"TRUNCATE {name} RESTART IDENTITY",
            f"ALTER TABLE {name} ALTER v SET DEFAULT '{dice.random()}'",
            f"REINDEX TABLE {name}",
        ]
        if self._views:
            changes.append(f"CREATE OR REPLACE VIEW v_{name} AS SELECT * FROM {name}")
        return dice.choice(changes)


def told(log: str) -> str:
    """Who stood in whose way, by the server's own word."""
    lines = log.splitlines()
    places = [i for i, line in enumerate(lines) if "deadlock detected" in line]
    return "\n".join(line[:300] for i in places for line in lines[i : i + 8])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Tables with sequences, views and indexes, a few for each client, and many that nobody changes."""
    name = f"deadlocks_{uuid4().hex[:12]}"
    host = newest()
    made = make_scene(host.create_database(name), tmp_path / "repository")
    for client in range(CLIENTS):
        for table in range(TABLES):
            one = f"t{client}_{table}"
            made.sql(
                f"CREATE TABLE {one} (id serial PRIMARY KEY, v text)",
                f"INSERT INTO {one} (v) SELECT 'x' FROM generate_series(1, 50)",
                f"CREATE VIEW v_{one} AS SELECT * FROM {one}",
            )
    yield made
    assert made.leftovers() == []
    host.drop_database(name)


@pytest.mark.parametrize(
    ("role", "deadlock_timeout", "views"), [("", "1s", True), ("plain", "1s", True), ("", "250ms", False)]
)
def test_the_application_is_never_the_victim(scene: Scene, role: str, deadlock_timeout: str, views: bool) -> None:
    """Truncating, altering and rebuilding several tables in one transaction, in any order, while backups run.

    Views are left alone where others look for deadlocks before our watcher does: pg_dump waits for a view without end.
    """
    url = ""
    if role:
        scene.sql("DROP ROLE IF EXISTS deadlock_reader", "CREATE ROLE deadlock_reader LOGIN PASSWORD 'test-only'")
        scene.sql("GRANT pg_read_all_data TO deadlock_reader")
        url = scene.url.replace("//postgres:", "//deadlock_reader:")
        assert url != scene.url
    results: Counter[str] = Counter()
    scene.sql(f"ALTER DATABASE {scene.url.rpartition('/')[2]} SET deadlock_timeout = '{deadlock_timeout}'")
    with Truncating(scene, views=views) as clients:
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                results[scene.take(url=url, late_lock_seconds=5).result.value] += 1
            except SourceBusy as busy:
                results[busy.msg] += 1
    print(told(newest().cluster.log()))
    assert clients.done[DEADLOCK] == 0, (clients.done, results)
    assert clients.done.total() == clients.done["ok"] > 20, clients.done


def test_a_sequence_that_stays_locked_at_the_end(scene: Scene) -> None:
    """An application that holds one for long is not waited for without end, and costs no backup."""
    with scene.connect() as application:

        def lock() -> None:
            application.execute("BEGIN")
            application.execute("TRUNCATE t0_0 RESTART IDENTITY")

        script = Script({"finishing": lock})
        taken = scene.take(script)
        application.execute("ROLLBACK")
    assert taken.result is Result.OK
    assert any("sequence locked" in note for note in script.notes)


def test_pg_dump_fails_in_words_of_another_language(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it met may pass: it is tried again at a new snapshot, and said as it is when it fails every time."""
    real = find_client("pg_dump", newest().version)
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "pg_dump"
    wrapper.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && exec {real.path} "$@"
if [ $(cat {tmp_path}/failures) -gt 0 ]; then
  echo $(($(cat {tmp_path}/failures) - 1)) > {tmp_path}/failures
  echo 'pg_dump: エラー: 問い合わせが失敗しました: デッドロックを検出しました' >&2; exit 1
fi
exec {real.path} "$@"
"""
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PGKURA_PG_BIN", str(wrapper.parent))
    (tmp_path / "failures").write_text("2")
    assert scene.take().result is Result.OK
    (tmp_path / "failures").write_text("9")
    with pytest.raises(ToolError, match="exit code 1"):
        scene.take()
