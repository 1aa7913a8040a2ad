"""Bad input: a documented exit code, a sentence with what, why and next, no secret shown, nothing touched."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.support.cli import Desk, Done
from tests.support.psql import with_user
from tests.support.servers import Server, newest

SECRET = "hunter2-geheim"
ROWS = "CREATE TABLE public.kept AS SELECT g AS id, 'row ' || g AS v FROM generate_series(1, 100) g"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A desk with one backup, its source, and another desk whose keys open nothing here."""

    desk: Desk
    other: Desk
    server: Server
    source: str

    def secrets(self) -> list[str]:
        """What must never be printed."""
        found = [SECRET]
        for path in (self.desk.identity, self.desk.host_key, self.other.identity, self.other.host_key):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if line.startswith("AGE-SECRET-KEY-1"):
                    found.append(line)
                elif name in ("signing", "operations", "mac"):
                    found.append(value)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Made once; every test proves that it left it unchanged."""
    home = newest()
    source = home.create_database("bad_input")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(ROWS.encode())
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    other = Desk(tmp_path_factory.mktemp("other"))
    other.run("init").expect()
    return Place(desk=desk, other=other, server=home, source=source)


def tree(folder: Path) -> str:
    """One hash of every name and byte below."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path.relative_to(folder)}\0{path.is_dir()}\0".encode())
        if path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def refused(place: Place, code: int, *arguments: str, env: dict[str, str], says: str = "") -> Done:
    """The refusal itself: code, sentence, JSON, silence about secrets, an untouched repository."""
    before = tree(place.desk.repository)
    done = place.desk.run(*arguments, "--json", env=env, timeout=90).expect(code)
    assert tree(place.desk.repository) == before, "the repository was touched"
    assert done.json["result"] == "failed" and done.json["error"]["exit_code"] == code
    error = done.json["error"]
    assert error["message"] and (error["why"] or error["next"]), error
    sentence = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert error["message"] in sentence
    assert says.lower() in done.err.lower(), done.err
    assert "Traceback" not in done.err + done.out
    for secret in place.secrets():
        assert secret not in done.out and secret not in done.err, "a secret was printed"
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A wrong environment for `verb`; {…} in a value is filled from the place."""

    code: int
    verb: tuple[str, ...] = ("backup",)
    env: dict[str, str] = field(default_factory=dict)
    says: str = ""


CASES: dict[str, Case] = {
    "no url": Case(code=2, env={"DATABASE_URL": ""}, says="DATABASE_URL"),
    "blank url": Case(code=2, env={"DATABASE_URL": "  "}, says="postgresql://"),
    "not a url": Case(code=2, env={"DATABASE_URL": f"{SECRET}@somewhere"}, says="postgresql://"),
    "other scheme": Case(code=2, env={"DATABASE_URL": f"mysql://u:{SECRET}@127.0.0.1/x"}, says="mysql"),
    "bad port": Case(code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:99999/x"}, says="port"),
    "port in letters": Case(code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:abc/x"}, says="port"),
    "raw at sign": Case(code=2, env={"DATABASE_URL": f"postgresql://u:p@{SECRET}%zz@127.0.0.1/x"}, says="encoded"),
    "several hosts": Case(code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@a.example,b.example/x"}, says="host"),
    "start-up options": Case(
        code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1/x?options=-csearch_path%3Dx"}, says="options"
    ),
    "unknown sslmode": Case(
        code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@db.example/x?sslmode=often"}, says="sslmode"
    ),
    "no TLS off this host": Case(
        code=2, env={"DATABASE_URL": f"postgresql://u:{SECRET}@db.example/x?sslmode=disable"}, says="clear text"
    ),
    "transaction pooler": Case(
        code=2, env={"DATABASE_URL": f"postgresql://postgres.ref:{SECRET}@127.0.0.1:6543/postgres"}, says="transaction"
    ),
    "unknown host": Case(
        code=14, env={"DATABASE_URL": f"postgresql://u:{SECRET}@no-such-host.invalid/x"}, says="host name is unknown"
    ),
    "refused port": Case(code=14, env={"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/x"}, says="host and port"),
    "unknown database": Case(code=14, env={"DATABASE_URL": "{unknown_database}"}, says="does not exist"),
    "no repository": Case(code=10, env={"PGKURA_REPOSITORY": "/nonexistent/place"}, says="pgkura init"),
    "repository not given": Case(code=2, env={"PGKURA_REPOSITORY": ""}, says="PGKURA_REPOSITORY"),
    "repository of another kind": Case(code=2, env={"PGKURA_REPOSITORY": "ftp://a/b"}, says="s3://"),
    "credential in the store's URL": Case(
        code=2, env={"PGKURA_REPOSITORY": f"s3://key:{SECRET}@bucket/p"}, says="AWS_SECRET_ACCESS_KEY"
    ),
    "store without TLS": Case(
        code=2, env={"PGKURA_REPOSITORY": "s3://b/p", "AWS_ENDPOINT_URL": "http://store.example"}, says="without TLS"
    ),
    "store nobody answers": Case(
        code=13,
        env={
            "PGKURA_REPOSITORY": "s3://b/p",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        },
    ),
    "wrong identity": Case(
        code=12, verb=("restore", "latest"), env={"PGKURA_IDENTITY": "{other_identity}"}, says="another repository"
    ),
    "wrong identity as text": Case(
        code=12, verb=("verify",), env={"PGKURA_IDENTITY": "{other_identity_text}"}, says="another repository"
    ),
    "host key of another repository": Case(
        code=12, env={"PGKURA_HOST_KEY": "{other_host_key}"}, says="another repository"
    ),
    "identity missing": Case(
        code=12, verb=("restore", "latest"), env={"PGKURA_IDENTITY": "/nonexistent/identity"}, says="PGKURA_IDENTITY"
    ),
    "host key missing": Case(code=12, env={"PGKURA_HOST_KEY": "/nonexistent/key"}, says="PGKURA_HOST_KEY"),
    "identity is a folder": Case(code=12, verb=("restore", "latest"), env={"PGKURA_IDENTITY": "/"}, says="cannot read"),
    "misspelt DRY_RUN": Case(code=2, verb=("restore", "latest"), env={"DRY_RUN": "ture"}, says="DRY_RUN"),
    "misspelt switch of the store": Case(code=2, env={"PGKURA_INSECURE_STORE": "maybe"}, says="PGKURA_INSECURE_STORE"),
    "misspelt switch of the database": Case(
        code=2, env={"PGKURA_INSECURE_DATABASE": "on!"}, says="PGKURA_INSECURE_DATABASE"
    ),
    "unknown snapshot": Case(code=10, verb=("show", "20200101"), says="pgkura snapshots"),
    "unknown snapshot to restore": Case(code=10, verb=("restore", "nonsense"), says="no snapshot"),
    "url where a snapshot is wanted": Case(
        code=10, verb=("restore", f"postgresql://u:{SECRET}@127.0.0.1/x"), says="no snapshot 'postgresql://u:…@"
    ),
    "url as one word too many": Case(
        code=2, verb=("verify", "latest", f"postgresql://u:{SECRET}@127.0.0.1/x"), says="u:…@127.0.0.1"
    ),
    "unknown kind of history": Case(code=2, verb=("history", "weather"), says="schema"),
    "unknown verb": Case(code=2, verb=("backupp",), says="backupp"),
    "unknown option": Case(code=2, verb=("backup", "--fast"), says="--fast"),
    "option out of range": Case(code=2, verb=("backup", "--workers", "0"), says="workers"),
    "old pg_dump": Case(code=19, env={"PGKURA_PG_BIN": "{old_tools}"}, says="too old"),
    "no pg_dump": Case(code=19, env={"PGKURA_PG_BIN": "/nonexistent"}, says="PGKURA_PG_BIN"),
    "repository exists": Case(code=11, verb=("init",), says="repository already"),
    "restore without a yes": Case(
        code=21, verb=("restore", "latest", "--allow-non-empty"), env={"DATABASE_URL": "{source}"}, says="--yes"
    ),
    "restore into a full database": Case(
        code=18, verb=("restore", "latest", "--yes"), env={"DATABASE_URL": "{source}"}, says="not empty"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, place: Place, tmp_path: Path) -> None:
    """Each case of the table above."""
    case = CASES[name]
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 13.22'\n")
    old.chmod(0o755)
    filled = {
        "{unknown_database}": place.server.url("no_such_database"),
        "{other_identity}": str(place.other.identity),
        "{other_identity_text}": place.other.identity.read_text(),
        "{other_host_key}": str(place.other.host_key),
        "{old_tools}": str(tmp_path),
        "{source}": place.source,
    }
    env = {"DATABASE_URL": place.source} | {k: filled.get(v, v) for k, v in case.env.items()}
    refused(place, case.code, *case.verb, env=env, says=case.says)


def test_wrong_password(place: Place) -> None:
    """The server asks for one; the wrong one is not shown."""
    with psycopg.connect(place.server.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS bad_input_login")
        connection.execute("CREATE ROLE bad_input_login LOGIN PASSWORD 'right'")
    wrong = with_user(place.source, "bad_input_login", SECRET)
    refused(place, 14, "backup", env={"DATABASE_URL": wrong}, says="wrong password")


def test_no_rights(place: Place, tmp_path: Path) -> None:
    """A role that may log in and read nothing: never a green backup."""
    with psycopg.connect(place.server.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS bad_input_nobody")
        connection.execute("CREATE ROLE bad_input_nobody LOGIN PASSWORD 'right'")
    poor = with_user(place.source, "bad_input_nobody", "right")
    copy = tmp_path / "repository"
    shutil.copytree(place.desk.repository, copy)
    done = place.desk.run("backup", "--json", env={"DATABASE_URL": poor, "PGKURA_REPOSITORY": str(copy)})
    assert done.code in (3, 15) and "kept" in done.out + done.err, (done.code, done.out, done.err)
    assert done.json["result"] in ("incomplete", "failed") and "Traceback" not in done.err


def test_init_into_a_folder_of_somebody_else(place: Place, tmp_path: Path) -> None:
    """What lies there is not ours: refused, and no key file is left."""
    theirs = tmp_path / "photos"
    theirs.mkdir()
    (theirs / "cat.jpg").write_bytes(b"cat")
    keys = {"PGKURA_IDENTITY": str(tmp_path / "i"), "PGKURA_HOST_KEY": str(tmp_path / "h")}
    refused(place, 11, "init", env={"PGKURA_REPOSITORY": str(theirs)} | keys, says="cat.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_init_never_overwrites_a_key(place: Place, tmp_path: Path) -> None:
    """The old identity may be the only way to somebody's backups."""
    before = place.desk.identity.read_bytes(), place.desk.host_key.read_bytes()
    refused(place, 2, "init", env={"PGKURA_REPOSITORY": str(tmp_path / "new")}, says="never overwrites")
    assert (place.desk.identity.read_bytes(), place.desk.host_key.read_bytes()) == before


def _cut(text: str) -> str:
    return text[: len(text) * 2 // 3]


def _altered(text: str) -> str:
    return text.replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1QQ").replace("signing ", "signing zz")


def _twice(text: str) -> str:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("pgkura-host-key"))
    return text + text if "AGE-SECRET-KEY-1" in text and "pgkura-host-key" not in text else lines


@pytest.mark.parametrize("spoil", [_cut, _altered, _twice, lambda _: "", lambda _: "\0\1\2", lambda _: "ÿ" * 9])
def test_malformed_key_files(spoil: Callable[[str], str], place: Place, tmp_path: Path) -> None:
    """Cut short, altered, doubled, empty, binary: exit 12, never a traceback."""
    for verb, variable, path in (
        (("restore", "latest"), "PGKURA_IDENTITY", place.desk.identity),
        (("backup",), "PGKURA_HOST_KEY", place.desk.host_key),
    ):
        spoilt = tmp_path / path.name
        spoilt.write_text(spoil(path.read_text()))
        refused(place, 12, *verb, env={"DATABASE_URL": place.source, variable: str(spoilt)})
        spoilt.write_bytes(b"\xff\xfe" + path.read_bytes())
        refused(place, 12, *verb, env={"DATABASE_URL": place.source, variable: str(spoilt)})


@pytest.mark.parametrize("name", ["pgkura-repository", "snapshots/*"])
def test_newer_format(name: str, place: Place, tmp_path: Path) -> None:
    """A repository or a snapshot of a later format: exit 17, not a guess."""
    copy = tmp_path / "later"
    shutil.copytree(place.desk.repository, copy)
    (path,) = copy.glob(name)
    path.write_bytes(path.read_bytes().replace(b"pgkura1 ", b"pgkura2 ", 1))
    for verb in (("show",), ("restore", "latest")):
        env = {"PGKURA_REPOSITORY": str(copy), "DATABASE_URL": place.source}
        refused(place, 17, *verb, env=env, says="newer pgkura")
