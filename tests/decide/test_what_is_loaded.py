"""What a verb loads before it does anything: starting up is most of a backup that finds nothing new."""

import json
import os
import subprocess
import sys

LOOK = """
import json, sys
from pgkura.cli.main import build
build("backup")
import numpy, psutil
print(json.dumps([sorted(sys.modules), psutil.Process().num_threads()]))
"""
#: What nobody needs who takes a backup; most of it takes as long to load as all the rest.
NOT_NEEDED = (
    "pgkura.replay",
    "pgkura.restore",
    "pgkura.verify",
    "distributed",
    "boto3",
    "rich",
    "concurrent.futures.process",
)


def test_a_backup_loads_nothing_of_other_verbs_and_starts_no_threads() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    modules, threads = json.loads(done.stdout)
    assert {"pgkura.snapshot.take", "numpy"} <= set(modules)
    assert [m for m in modules if m.startswith(NOT_NEEDED)] == []
    assert threads == 1
