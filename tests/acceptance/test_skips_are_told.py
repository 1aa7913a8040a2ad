"""What a machine cannot run is named in one line, also when the tests run in workers, as in `make test`."""

import os
import subprocess
import sys

import pytest
from tests.support.cli import ROOT

CHOSEN = ("tests/decide/test_verify_planning.py", "tests/acceptance/test_way_out.py", "-k", "planning")


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "in workers"])
def test_missing_servers_are_named(workers: tuple[str, ...]) -> None:
    """Versions are left out when tests are collected, which with workers no test report tells."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PGKURA", "PYTEST"))}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.support.hidden_servers",
            "-p",
            "no:cacheprovider",
            *workers,
            *CHOSEN,
        ],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("not run here: ")]
    assert len(lines) == 1 and "PostgreSQL 14" in lines[0] and "PostgreSQL 17" in lines[0], done.stdout
    assert "PostgreSQL 18" not in lines[0]
