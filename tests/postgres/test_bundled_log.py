"""A log in bundles, pruned and copied, leads to the same moments: a running watcher, an independent look."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_restore_at import observe, restored
from tests.postgres.test_watch import archived, open_repository, the_log
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions

from pgkura.repository.bundles import BundleName


@pytest.fixture(params=[versions()[0], versions()[-1]])
def source(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A database to be watched, owned by a role that is no superuser."""
    home = server(request.param)
    name = f"at_{request.param}"
    yield request.param, ledger.make(home, name)
    ledger.drop_slots(home, name)


def files(desk: Desk, place: str) -> int:
    """Of the log."""
    return len(list(desk.repository.glob(f"changes/*/{place}/[!.]*")))


def test_the_same_moments(source: tuple[int, str], tmp_path: Path) -> None:
    """A watcher bundles beside its work, and goes on behind that; prune takes the small files; a copy has it all."""
    version, url = source
    desk = Desk(tmp_path / "first")
    desk.run("init").expect()
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    seen: list[tuple[str, dict[str, str]]] = []
    with ledger.Load(url, seed=version, gentle=True) as load, ExitStack() as stack:
        watcher = desk.start("watch", "--period", "0.1s", "--quiet", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.terminate)
        time.sleep(1)
        desk.run("backup", env=env).expect(3)
        load.gentle = False
        while not files(desk, "bundles"):
            time.sleep(0.5)
            if len(seen) < 2:
                seen.append(observe(url))
        seen.append(observe(url))
        time.sleep(0.5)
    desk.run("watch", "--once", "--no-bundle", env=env).expect()
    order = archived(the_log(desk))
    assert sorted(order) == sorted(load.committed)
    loose = files(desk, "segments")
    assert loose > 64

    planned = desk.run("prune", "--keep-last", "1", "--grace", "0", "--dry-run", "--json").expect().json["changes"][0]
    done = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect().json
    assert done["changes"]["files_deleted"] == planned["files_to_delete"] >= 64
    assert files(desk, "segments") <= loose - 64
    assert desk.run("verify", "--json").expect().json["problems"] == []
    repo = open_repository(desk)
    assert any(isinstance(run, BundleName) for run in repo.runs(repo.chain_ids()[0]))

    other = Desk(tmp_path / "second")
    desk.run("copy", "--all", "--to-repository", str(other.repository), env={"PGKURA_IDENTITY": "none"}).expect()
    other = replace(other, environment=desk.environment | {"PGKURA_REPOSITORY": str(other.repository)})
    for at, (snapshot, sums) in zip((desk, other, other), seen, strict=True):
        got, _, _ = restored(at, version, f"snapshot {snapshot}")
        assert got == sums
    got, rows, told = restored(other, version, "latest")
    assert rows == sorted(order) and got == observe(url)[1]
    assert isinstance(told["at"], dict) and told["at"]["every_change_met_its_row"] is True

    # The watcher goes on behind its bundles.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO ledger (n, client) VALUES (-1, 0)")
    desk.run("watch", "--once", env=env).expect()
    _, rows, _ = restored(desk, version, "latest")
    assert rows == sorted([*order, -1])
