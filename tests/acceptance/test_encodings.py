"""Databases in other encodings than UTF-8, and values that UTF-8 does not have."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal
from tests.support.cli import ROOT, Desk
from tests.support.servers import blank, blank_as_it_is, versions

from pgkura.operations.doctor import WITHOUT_GAPS

OLDEST_AND_NEWEST = (versions()[0], versions()[-1])
# A byte that is no UTF-8, a user-defined character, a byte that nothing was assigned to.
BROKEN = (("SQL_ASCII", b"caf\xe9 1"), ("EUC_JP", b"\xfe\xfe"), ("WIN1252", b"\x81"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture(autouse=True)
def own_server(request: pytest.FixtureRequest) -> None:
    """A server of its own: a role's name in one encoding is in the way of every database in another one."""
    if "version" in request.fixturenames:
        blank(request.getfixturevalue("version"))


def create(version: int, name: str, encoding: str) -> str:
    """A database in this encoding."""
    home = blank_as_it_is(version)
    home.drop_database(name)
    made = SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute(made.format(Identifier(name), Literal(encoding)))
    return home.url(name)


def run(url: str, script: str, encoding: str = "UTF8", value: bytes = b"") -> None:
    """Execute it, with this value where it says @@."""
    with psycopg.connect(url, autocommit=True, client_encoding=encoding) as connection:
        connection.execute(script.encode().replace(b"@@", value))


def backed_up(desk: Desk, url: str, code: int = 0) -> dict[str, Any]:
    """The answer of a backup."""
    return desk.run("backup", "--json", env={"DATABASE_URL": url}).expect(code).json


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
@pytest.mark.parametrize(("encoding", "word"), [("LATIN1", "café"), ("EUC_JP", "日本"), ("SQL_ASCII", "日本")])
def test_a_database_in_another_encoding_comes_back(version: int, encoding: str, word: str, desk: Desk) -> None:
    """Rows, names, comments and function bodies."""
    source, target = create(version, "encoded", encoding), create(version, "encoded_back", encoding)
    run(
        source,
        f"""CREATE TABLE "{word}" (id integer PRIMARY KEY, x text DEFAULT '{word}');
            COMMENT ON TABLE "{word}" IS '{word}';
            CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '{word}' $$;
            INSERT INTO "{word}" VALUES (1);
            INSERT INTO "{word}" SELECT n, repeat('{word}', 20) FROM generate_series(2, 5000) n""",
    )
    assert backed_up(desk, source)["result"] == "ok"
    restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
    assert restored["proof"]["equal"] is True
    with psycopg.connect(target, client_encoding="UTF8") as connection:
        assert connection.execute("SELECT f(), x FROM {} WHERE id = 1".format(f'"{word}"')).fetchone() == (word, word)


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
@pytest.mark.parametrize(("encoding", "value"), BROKEN)
def test_a_value_without_equivalent_costs_its_table_alone(
    version: int, encoding: str, value: bytes, desk: Desk
) -> None:
    """Small tables travel as text, several at once; large ones in binary form; later only what is new of them."""
    source = create(version, "broken", encoding)
    run(source, "CREATE TABLE small (x text); CREATE TABLE good (x text); INSERT INTO good VALUES ('a'), ('b')")
    run(
        source,
        """CREATE TABLE large (n integer, x text); CREATE TABLE large_good (n integer, x text);
           INSERT INTO large SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n;
           INSERT INTO large_good SELECT * FROM large""",
    )
    assert backed_up(desk, source)["result"] == "ok"
    run(source, "INSERT INTO small VALUES ('@@'); INSERT INTO large VALUES (0, '@@')", encoding, value)
    for options in ([], ["--full"]):
        backup = desk.run("backup", "--json", *options, env={"DATABASE_URL": source}).expect(3).json
        said = {f["object"]: (f["class"], f["reason"]) for f in backup["skipped"]}
        assert said.keys() == {'table "public"."small"', 'table "public"."large"'}
        assert all(cls == "lost" and "cannot be written in UTF-8" in why for cls, why in said.values()), said
        assert "0xe9" not in str(said) and "0xfe" not in str(said) and "Encodings" in str(said)
        assert backup["rows"] == 5002
    restored = desk.run("restore", "latest", "--to", create(version, "broken_back", encoding), "--json").expect(3).json
    assert restored["rows"] == 5002
    assert {d["object"] for d in restored["proof"]["differences"]} == said.keys()
    against = desk.run("verify", "--against", source, "--json").expect(3).json
    unread = {'rows of "public"."small"', 'rows of "public"."large"'}
    assert {d["object"] for d in against["proof"]["differences"]} == said.keys() | unread
    assert found_as_told(source, "large") == found_as_told(source, "small") == 1
    run(source, "TRUNCATE small; DELETE FROM large WHERE n = 0")
    assert backed_up(desk, source)["result"] == "ok"


def _script() -> str:
    (script,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "known-faults.md").read_text(), re.DOTALL)
    return str(script)


def found_as_told(url: str, table: str) -> int:
    """How many rows of a table the way of docs/known-faults.md finds; it leaves nothing behind."""
    make, ask = _script().replace("your_table", table).split("$$;")
    with psycopg.connect(url) as connection:
        connection.execute(f"{make}$$")
        return len(connection.execute(ask).fetchall())


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
@pytest.mark.parametrize(
    "script",
    [
        "COMMENT ON TABLE t IS '@@'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''@@'''",
        'CREATE TABLE "@@" (i integer)',
    ],
)
def test_catalog_text_without_equivalent_ends_in_plain_words(version: int, script: str, desk: Desk) -> None:
    """No backup is made, and the error says where to go on; `doctor` says it beforehand."""
    source = create(version, "broken_catalog", "SQL_ASCII")
    run(source, f"CREATE TABLE t (x text); {script}", "SQL_ASCII", b"caf\xe9 1")
    failed = desk.run("backup", "--json", env={"DATABASE_URL": source})
    assert failed.code in (14, 19), failed
    assert "known-faults.md" in failed.json["error"]["next"], failed.json
    examined = desk.run("doctor", "--json", env={"DATABASE_URL": source}).expect(1).json["checks"]
    assert any(c["what"] == "encoding" and "SQL_ASCII" in c["found"] for c in examined)
    assert any(c["state"] == "fail" and "known-faults.md" in c["change"] for c in examined)


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
@pytest.mark.parametrize(("made", "read"), [("UTF8", "EUC_JP"), ("EUC_JP", "UTF8"), ("EUC_JP", "SQL_ASCII")])
def test_a_role_named_in_another_encoding_ends_in_plain_words(version: int, made: str, read: str, desk: Desk) -> None:
    """Names of roles are common to all databases: no backup of the one that cannot read it, until it is renamed."""
    home, source = create(version, "role_made", made), create(version, "role_read", read)
    run(source, "CREATE TABLE t (x text)")
    run(home, 'CREATE ROLE "ロール"')
    try:
        failed = desk.run("backup", "--json", env={"DATABASE_URL": source})
        assert failed.code in (14, 19), failed
        assert "known-faults.md" in failed.json["error"]["next"], failed.json
        assert "Traceback" not in failed.err
        told = (ROOT / "docs" / "known-faults.md").read_text()
        (ask,) = re.findall(r"`(SELECT oid FROM pg_roles .*?)`", told)
        with psycopg.connect(source) as connection:
            connection.execute(f"{_script().partition('$$;')[0]}$$")
            assert len(connection.execute(ask).fetchall()) == 1
    finally:
        run(home, 'ALTER ROLE "ロール" RENAME TO renamed')
    assert backed_up(desk, source)["result"] == "ok"


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
def test_doctor_knows_the_encodings_with_gaps(version: int, desk: Desk) -> None:
    """Each byte of the others can be written in UTF-8, says the server."""
    home = blank_as_it_is(version)
    with psycopg.connect(home.url(), autocommit=True) as connection:
        for encoding in WITHOUT_GAPS - {"UTF8"}:
            every = f"SELECT convert(decode(lpad(to_hex(b), 2, '0'), 'hex'), '{encoding}', 'UTF8')"
            connection.execute(f"{every} FROM generate_series(1, 255) b")
    for name, noted in (("LATIN1", False), ("UTF8", False), ("EUC_JP", True)):
        url = create(version, "examined", name)
        checks = desk.run("doctor", "--json", env={"DATABASE_URL": url}).json["checks"]
        assert any(c["what"] == "encoding" for c in checks) is noted


def test_queries_can_be_sent_to_any_server() -> None:
    """A character in a comment of ours is one that the database's encoding may not have."""
    for place in ("postgres", "snapshot"):
        for file in (ROOT / "src" / "pgkura" / place / "queries").glob("*.sql"):
            assert file.read_bytes().isascii(), file
