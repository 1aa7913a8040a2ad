"""The plan document: what is read, and how every fault is named."""

import json
from pathlib import Path

import pytest
from tests.support.cli import ROOT

from pgkura.core.errors import UsageError
from pgkura.policy.document import load_policy, schema

GOOD = """\
# our databases
repository: s3://backups/learning
databases:
  platform:
    url_env: PLATFORM_URL
  wiki:
    url_file: secrets/wiki.url
    repository: /srv/wiki
    increments: {reread_after: 7d}
increments:
  rebase_share: 0.25
  reread_after: 60d
fleet:
  at_once: 3
"""


ONE = "databases:\n  a: {url_env: A}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "pgkura.yaml"
    path.write_text(text)
    return path


def fault(folder: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as refused:
        load_policy(written(folder, text))
    return refused.value


def test_a_good_document(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, GOOD))
    assert policy.fleet.at_once == 3
    assert policy.databases["platform"].reference(tmp_path) == "env:PLATFORM_URL"
    assert policy.databases["wiki"].reference(tmp_path) == f"file:{tmp_path / 'secrets/wiki.url'}"
    assert policy.databases["wiki"].repository == "/srv/wiki"
    platform, wiki = policy.increments_of("platform"), policy.increments_of("wiki")
    assert (platform.rebase_share, platform.days, wiki.rebase_share, wiki.days) == (0.25, 60, 0.25, 7)


def test_defaults(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, "databases: {a: {url_env: A}}\n"))
    assert policy.fleet.at_once == 2 and policy.repository is None
    assert (policy.increments_of("a").rebase_share, policy.increments_of("a").days) == (None, None)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("databases:\n  a:\n    url_env: A\nretention: 3\n", "line 4: retention: no such key", "databases"),
        ("databases:\n  a:\n    url_env: A\n    urll: x\n", "line 4: databases.a.urll: no such key", "url_file"),
        ("databases:\n  a: {url_env: A}\nfleet:\n  at_once: 0\n", "line 4: fleet.at_once", "fleet.md"),
        ("databases:\n  a: {url_env: A}\nfleet:\n  at_once: '2'\n", "line 4: fleet.at_once", "fleet.md"),
        (f"{ONE}increments:\n  rebase_share: -1\n", "line 4: increments.rebase_share", "fleet.md"),
        (f"{ONE}increments:\n  reread_after: 12h\n", "line 4: increments.reread_after: give whole", "fleet.md"),
        (f"{ONE}increments:\n  reread: 12\n", "line 4: increments.reread: no such", "reread_after"),
        ("databases:\n  a: {url_env: A, increments: {x: 1}}\n", "line 2: databases.a.increments.x", "rebase_share"),
        ("databases:\n  a: {}\n", "line 2: databases.a: give exactly one", "fleet.md"),
        ("databases:\n  a: {url_env: A, url_file: b}\n", "databases.a: give exactly one", "fleet.md"),
        ("databases:\n  'a b': {url_env: A}\n", "line 2: databases.a b", "fleet.md"),
        ("databases: {}\n", "line 1: databases", "fleet.md"),
        ("repository: x\n", "databases: is missing", "fleet.md"),
        ("- a\n", "holds no keys", "databases"),
        ("", "holds no keys", "databases"),
        ("databases:\n  a: {url_env: A}\n  a: {url_env: B}\n", "line 3: found duplicate key", "key: value"),
        ("databases:\n  a: [\n", "line ", "key: value"),
        ("databases:\n  a: {url_env: !!python/name:os.system A}\n", "databases.a", ""),
    ],
)
def test_faults_have_file_line_key_and_hint(tmp_path: Path, text: str, said: str, hint: str) -> None:
    error = fault(tmp_path, text)
    assert "pgkura.yaml" in error.msg and said in error.msg, error
    assert hint in error.hint


def test_secrets_are_refused_and_not_shown(tmp_path: Path) -> None:
    error = fault(tmp_path, "databases:\n  a:\n    url: postgresql://u:very-secret@h/d\n")
    assert "line 3: databases.a.url: no such key" in str(error) and "no secrets" in str(error)
    assert "very-secret" not in str(error)
    error = fault(tmp_path, "databases:\n  a:\n    url_env: postgresql://u:very-secret@h/d\n")
    assert "line 3: databases.a.url_env" in str(error) and "very-secret" not in str(error)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    error = fault(tmp_path, "databases:\n  a: {url_env: A, x: 1}\nfleet: {y: 2}\n")
    assert "databases.a.x" in str(error) and "fleet.y" in str(error)


def test_the_published_schema_is_current() -> None:
    """docs/pgkura.schema.json is what the program accepts."""
    stored = json.loads((ROOT / "docs" / "pgkura.schema.json").read_text())
    assert stored == schema(), "run scripts/reference.py --schema > docs/pgkura.schema.json"
