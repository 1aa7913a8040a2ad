"""An export: the plan's files, whole or not there, and enough for psql alone, on a plain server and a hosted one."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import zstandard
from tests.support import compare, nasty
from tests.support.psql import run_program, wheel_bin
from tests.support.servers import blank, server, versions
from tests.support.snapshot_scene import Scene, make_scene
from tests.support.supabase import APART, Standin

from pgkura.core.errors import StoreError, Tampered, UsageError
from pgkura.core.outcome import FindingClass
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.operations.export import Exported, export
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.manifest import Manifest
from pgkura.verify.proof import Proof, prove

KINDS = (
    "extensions", "roles", "custom_types", "schema", "views", "functions", "triggers", "indexes", "constraints",
    "rls_policies", "permissions", "sequences",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Manifest, Exported]]:
    """The nasty database of the oldest server with contrib, exported."""
    home = server(min(versions(), key=lambda v: (v != 15, v)))
    home.create_database("exported")
    filled = nasty.fill(home, "exported", bound_for=server(versions()[-1]))
    folder = tmp_path_factory.mktemp("export")
    scene = make_scene(filled.url, folder / "repository")
    manifest = scene.take().manifest
    yield scene, manifest, export(scene.repo, manifest, folder / "out", Silent())
    nasty.remove_subscriptions(filled.url)
    home.drop_database("exported")


def load(folder: Path, url: str) -> "subprocess.CompletedProcess[str]":
    """psql and nothing else."""
    argv = [str(wheel_bin() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", str(folder / "load.sql")]
    return run_program(argv, expect_ok=False)


def against(scene: Scene, manifest: Manifest, url: str) -> Proof:
    """The loaded database with the snapshot."""
    return prove(Endpoint.parse(url), scene.repo, manifest, progress=Silent(), stop=Stop())


def counted(proof: Proof) -> list[str]:
    """What makes it differ."""
    kinds = (FindingClass.LOST, FindingClass.DENIED)
    return [f"{f.object}: {f.reason}" for f in proof.differences if f.cls in kinds]


@pytest.mark.parametrize("newer", [False, True], ids=["same version", "newest version"])
def test_psql_alone_gives_an_equal_database(exported: tuple[Scene, Manifest, Exported], newer: bool) -> None:
    """Functions that look like DDL, names of every kind, large objects, settings: equal by our proof."""
    scene, manifest, made = exported
    home = blank(versions()[-1]) if newer else server(manifest.server_version_num // 10000)
    url = home.create_database("loaded")
    done = load(made.directory, url)
    assert done.returncode == 0, done.stderr
    proof = against(scene, manifest, url)
    assert proof.equal, counted(proof)
    nasty.remove_subscriptions(url)
    home.drop_database("loaded")


def test_the_plans_files_hold_every_statement_once(exported: tuple[Scene, Manifest, Exported]) -> None:
    """By kind for people, by dependency for psql: the same statements."""
    _, manifest, made = exported
    folder = made.directory
    names = {path.name for path in folder.iterdir()}
    assert {f"{kind}.sql" for kind in KINDS} <= names
    assert {"README.txt", "restore-order.txt", "load.sql", "other.sql", "data", "parts"} <= names

    def lines(files: list[Path]) -> Counter[str]:
        found = Counter(line for file in files for line in file.read_text().splitlines())
        return Counter({k: n for k, n in found.items() if not k.startswith(("SET ", "DO ")) and k})

    by_kind = lines([folder / f"{kind}.sql" for kind in (*KINDS, "other") if kind != "roles"])
    by_order = lines(sorted((folder / "parts").glob("[1347]-*.sql")))
    assert by_kind.total() > 1000
    assert by_kind - by_order == Counter() and by_order - by_kind == Counter()
    assert manifest.id in (folder / "README.txt").read_text()
    assert "CLEAR TEXT" in (folder / "README.txt").read_text()
    assert "setval" in (folder / "sequences.sql").read_text()


def test_rows_lie_in_both_forms(exported: tuple[Scene, Manifest, Exported]) -> None:
    """What COPY reads, compressed, and the same as text between COPY and its end mark; every table is listed."""
    _, manifest, made = exported
    folder = made.directory / "data"
    listed = [line.split("\t") for line in (folder / "tables.tsv").read_text().splitlines()[1:]]
    tables = [words for words in listed if words[0] != "large_objects"]
    assert len(tables) == made.tables == manifest.counts["tables"]
    assert {words[5] for words in tables} == {"text", "binary"}
    assert sum(int(words[3]) for words in tables) == made.rows == manifest.counts["rows"]
    for stem, name, columns, rows, size, form in tables:
        if rows == "0":
            continue
        with (folder / f"{stem}.copy.zst").open("rb") as file:
            text = zstandard.ZstdDecompressor().stream_reader(file).read()
        if form == "text":
            assert len(text) == int(size) and text.count(b"\n") == int(rows)
        else:
            assert text.startswith(b"PGCOPY\n\xff\r\n\0") and text.endswith(b"\xff\xff") and len(text) == int(size) + 21
        plain = (folder / f"{stem}.sql").read_bytes()
        head, _, rest = plain.partition(b" FROM stdin;\n")
        assert rest.endswith(b"\\.\n") and rest.count(b"\n") == int(rows) + 1
        assert form == "binary" or rest == text + b"\\.\n"
        assert head.rpartition(b"\n")[2].startswith(b"COPY ")
        assert columns == "-" or head.endswith(columns.encode()), name


def test_only_its_owner_may_read_it(exported: tuple[Scene, Manifest, Exported]) -> None:
    """0700 and 0600, the folder itself too."""
    _, _, made = exported
    paths = [made.directory, *made.directory.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o700, 0o600}
    assert made.as_json()["clear_text"] is True and made.files == sum(p.is_file() for p in paths)


def test_a_folder_with_something_in_it_is_refused(exported: tuple[Scene, Manifest, Exported], tmp_path: Path) -> None:
    """And left as it is; an empty one is taken."""
    scene, manifest, _ = exported
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    with pytest.raises(UsageError):
        export(scene.repo, manifest, full, Silent())
    with pytest.raises(UsageError):
        export(scene.repo, manifest, full / "mine", Silent())
    assert [p.name for p in tmp_path.iterdir()] == ["full"] and (full / "mine").read_text() == "mine"
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    export(scene.repo, manifest, empty, Silent())
    assert (empty / "load.sql").exists() and empty.stat().st_mode & 0o777 == 0o700


def test_nothing_half_written_bears_the_name(exported: tuple[Scene, Manifest, Exported], tmp_path: Path) -> None:
    """Damage in the repository, a folder that cannot be made: an error and no trace."""
    scene, manifest, _ = exported
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError):
        export(scene.repo, manifest, blocked / "below", Silent())
    copy = make_scene(scene.url, tmp_path / "repository")
    taken = copy.take().manifest
    component = taken.components["chunks"].ref
    assert component is not None
    for file in sorted((tmp_path / "repository" / "data").rglob("*")):
        if file.is_file() and file.name != component.object.id:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    with pytest.raises(Tampered):
        export(copy.repo, taken, tmp_path / "out", Silent())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "repository"]


@pytest.mark.parametrize("version", [v for v in versions() if v in (15, 17)])
@pytest.mark.parametrize("default_grants", ["old", "new"])
def test_a_hosted_project_by_psql_alone(version: int, default_grants: str, tmp_path: Path) -> None:
    """As the demoted `postgres` into a fresh project: equal, with REVOKEs as before and jobs switched off."""
    with (
        Standin.start(version, default_grants=default_grants) as source,
        Standin.start(version, default_grants=default_grants) as target,
    ):
        source.fill_customer()
        scene = make_scene(source.url(), tmp_path / "repository")
        manifest = scene.take().manifest
        made = export(scene.repo, manifest, tmp_path / "out", Silent())
        done = load(made.directory, target.url())
        assert done.returncode == 0, done.stderr
        proof = against(scene, manifest, target.url())
        assert proof.equal, counted(proof)
        compare.assert_same(source.admin_url, target.admin_url, ignore=APART)
        with psycopg.connect(target.admin_url) as connection:
            assert connection.execute("SELECT count(*) FROM cron.job WHERE active").fetchall() == [(0,)]
