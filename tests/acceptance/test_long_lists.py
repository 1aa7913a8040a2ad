"""A chunk list in several parts: we and the script read it, whoever knows only lists in one part refuses it."""

import sys
from pathlib import Path

from tests.support import compare, nasty
from tests.support.cli import ROOT, Desk, Done, command
from tests.support.psql import client
from tests.support.servers import server, versions

from pgkura.repository import canonical
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage

# The command line with lists cut and indexes divided as if there were a million chunks.
SMALL_PARTS = """
from pgkura.repository import keeping
from pgkura.snapshot import components
components.COMPONENT_BYTES, keeping.INDEX_CHUNKS = 2000, 10
from pgkura.cli.main import main
main()
"""
OLD_SCRIPT = ROOT / "tests/format/v1/repository/restore.sh"


def backed_up(tmp_path: Path, source: str) -> Desk:
    """A desk with one backup of many parts."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    argv = [sys.executable, "-c", SMALL_PARTS, "backup"]
    command(argv, desk.environment | {"DATABASE_URL": source}).expect()
    return desk


def by_script(desk: Desk, target: str, *more: str) -> Done:
    """The repository's own script, with the clients of the server's version."""
    folder = desk.folder / "clients"
    folder.mkdir()
    for name in ("psql", "pg_restore"):
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\nexec {client(name, versions()[-1])} "$@"\n')
        wrapper.chmod(0o755)
    environment = desk.environment | {"PATH": f"{folder}:{desk.environment['PATH']}", "TMPDIR": str(desk.folder)}
    return command(["bash", str(desk.repository / "restore.sh"), str(desk.identity), target, *more], environment)


def opened(desk: Desk) -> Repository:
    """With both keys."""
    return Repository.open(
        LocalStorage(desk.repository),
        identity=Identity.parse(desk.identity.read_text()),
        host=HostKey.parse(desk.host_key.read_text()),
    )


def test_a_chunk_list_in_parts_comes_back_by_us_and_by_the_script(tmp_path: Path) -> None:
    home = server(versions()[-1])
    source = nasty.fill(home, f"long_lists_{home.version}").url
    desk = backed_up(tmp_path, source)
    repo = opened(desk)
    manifest = repo.manifest("latest")
    assert len(manifest.components["chunks"].more) > 2
    assert len(repo.index_keys()) > 2
    desk.run("verify").expect()
    # A host that knows no identity goes on from it, and a prune finds nothing that nobody needs.
    second = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    assert second["chunks_unchanged"] > 0
    planned = desk.run("prune", "--keep-last", "2", "--dry-run", "--json", "--grace", "0").expect().json
    assert (planned["objects_to_delete"], planned["objects_to_mark"]) == (0, 0)
    target = home.create_database(f"long_lists_ours_{home.version}")
    desk.run("restore", manifest.id, "--to", target, "--yes").expect()
    compare.assert_same(source, target)
    target = home.create_database(f"long_lists_script_{home.version}")
    done = by_script(desk, target, manifest.id).expect()
    assert done.out.splitlines()[-1].startswith("done: ")
    compare.assert_same(source, target)


def test_who_knows_only_lists_in_one_part_stops(tmp_path: Path) -> None:
    """The record says version 2, and a script of before finds no such object: never the last part for the whole."""
    home = server(versions()[-1])
    source = nasty.fill(home, f"long_lists_old_{home.version}").url
    desk = backed_up(tmp_path, source)
    repo = opened(desk)
    key = "snapshots/" + repo.manifest_ids()[-1]
    _, payload = repo.open_record("manifest", key, repo.storage.get(key))
    line, _, rest = payload.partition(b"\n")
    record = canonical.decode(line, "a manifest")
    assert isinstance(record, dict) and record["version"] == 2
    assert rest.count(b"component\tchunks\t+\t") == len(repo.manifest("latest").components["chunks"].refs)
    (desk.repository / "restore.sh").write_bytes(OLD_SCRIPT.read_bytes())
    target = home.create_database(f"long_lists_old_target_{home.version}")
    done = by_script(desk, target)
    assert done.code != 0 and "error: data/+/+ is damaged or missing" in done.err, done
