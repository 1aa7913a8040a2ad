"""The command blocks of README and how-to pages, executed as a reader would type them, real places filled in."""

import re
import shutil
import sys
from pathlib import Path

import psycopg
import pytest
from tests.support import compare, ledger, nasty
from tests.support.cli import ROOT, Desk, command
from tests.support.servers import newest

BLOCK = re.compile(r"^ *```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SHIM = '#!/bin/sh\nexec "{python}" -m pgkura "$@"\n'


def commands(page: str) -> list[str]:
    """Lines that begin with a prompt, and crontab lines without their times."""
    found: list[str] = []
    for block in BLOCK.findall((ROOT / page).read_text()):
        for line in block.splitlines():
            text = line.strip()
            if text.startswith("$ "):
                found.append(re.sub(r"\s+#.*$", "", text[2:]))
            elif re.match(r"0 2 \* \* \*", text):
                found.append(
                    text.removeprefix("0 2 * * *")
                    .replace("DATABASE_URL=…", "")
                    .replace("PGKURA_REPOSITORY=…", "")
                    .strip()
                )
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk with a `pgkura` on its PATH and nothing made yet."""
    made = Desk(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "pgkura"
    shim.write_text(SHIM.format(python=sys.executable))
    shim.chmod(0o755)
    made.environment["PATH"] = f"{folder}:{made.environment['PATH']}"
    return made


def filled(line: str, desk: Desk, source: str, target: str) -> str:
    """The example's places replaced by real ones; nothing else may change."""
    line = re.sub(r"'postgresql://postgres\.abcdef[^']*'", f"'{source}'", line)
    line = re.sub(r"'postgresql://(?:…|postgres:PASSWORD@db\.example\.org:5432/postgres)'", f"'{target}'", line)
    line = line.replace("s3://example-backups/learning-platform", str(desk.repository))
    line = line.replace("/path/to/identity.txt", str(desk.identity)).replace(
        "/copy/of/the/repository", str(desk.repository)
    )
    line = line.replace("./restore.sh", "bash restore.sh")
    return line.replace('make setup && export PATH="$PWD/.venv/bin:$PATH"', "true")


@pytest.mark.parametrize("page", ["README.md", "README.ja.md"])
def test_readme_from_nothing_to_a_proven_restore(page: str, desk: Desk) -> None:
    """The five steps, in their order, on one shell."""
    home = newest()
    source = home.create_database("docs_source")
    nasty.fill(home, "docs_source")
    target = home.create_database("docs_target")
    lines = [filled(line, desk, source, target) for line in commands(page)]
    assert "make demo" in lines[0] and "make test" in lines[1]
    assert sum("pgkura" in line for line in lines) >= 6
    script = "set -e\n" + "\n".join(lines[2:])
    without = {k: v for k, v in desk.environment.items() if k != "PGKURA_REPOSITORY"}
    command(["bash", "-c", script], without).expect()
    compare.assert_same(source, target)


def test_the_3_am_page(desk: Desk) -> None:
    """Every command of the page, in English and Japanese; then the way without pgkura."""
    home = newest()
    source = home.create_database("night_source")
    nasty.fill(home, "night_source")
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    for number, page in enumerate(("restore-at-3am.md", "restore-at-3am.ja.md")):
        target = home.create_database(f"night_{number}")
        lines = [filled(line, desk, source, target) for line in commands(f"docs/how-to/{page}")]
        lines = [line for line in lines if "restore.sh" not in line and not line.startswith("cd ")]
        assert any("restore latest" in line for line in lines)
        bare = {"PATH": desk.environment["PATH"], "HOME": str(desk.folder), "PYTHONPATH": str(ROOT / "src")}
        command(["bash", "-c", "set -e\n" + "\n".join(lines)], bare).expect()
        compare.assert_same(source, target)


def test_the_point_in_time_page(desk: Desk) -> None:
    """Every command of the page, in English and Japanese, on one watched database."""
    home = newest()
    source = ledger.make(home, "moments")
    desk.run("init").expect()
    for number, page in enumerate(("point-in-time.md", "point-in-time.ja.md")):
        target = home.create_database(f"moments_{number}")
        lines = [line.replace("pgkura watch", "pgkura watch --once") for line in commands(f"docs/how-to/{page}")]
        lines = [line.replace("before xid 4711", "latest") for line in lines]
        # Passwords of roles are not for a plain owner to read.
        lines = [line if "watch" in line else f"{line} || test $? = 3" for line in lines]
        assert any("--at" in line for line in lines)
        watch = [line for line in lines if "watch" in line]
        places = {"TARGET": target, "SECOND": str(desk.folder / f"second-{number}")}
        environment = desk.environment | places | {"DATABASE_URL": source}
        lines.insert(next(n for n, line in enumerate(lines) if "--at" in line), watch[0])
        command(["bash", "-c", "set -e\n" + "\n".join(lines)], environment).expect()
        with psycopg.connect(target) as connection:
            assert connection.execute("SELECT count(*) FROM account").fetchone() == (60,)
    ledger.drop_slots(home, "moments")


def test_demo_tells_the_story(desk: Desk) -> None:
    """`make demo` is `pgkura demo`: it ends well, leaves no server behind, and says where the backup lies."""
    kept = desk.folder / "kept"
    told = desk.run("demo", "--keep", str(kept), env={"DEMO_ROWS": "500"}).expect()
    for word in (
        "mistake",
        "the table a query saw just before",
        "lost",
        "back",
        "proof    equal",
        str(kept / "repository"),
    ):
        assert word in told.out
    shutil.rmtree(kept)
