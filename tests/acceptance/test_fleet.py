"""`backup --all`: several databases by one policy, a bounded number at once, one failure stopping no other."""

import signal
import time
from pathlib import Path

import psycopg
import pytest
from tests.support.cli import Desk
from tests.support.servers import Server, newest


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk with a repository, in its own folder."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def database(home: Server, name: str, rows: int = 500) -> str:
    url = home.create_database(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT g, repeat('x', 400) v FROM generate_series(1, {rows}) g".encode())
    return url


def policy(desk: Desk, text: str) -> None:
    (desk.folder / "pgkura.yaml").write_text(text)


THREE = """\
databases:
  one: {url_env: ONE_URL}
  two: {url_file: two.url}
  three: {url_env: THREE_URL}
fleet: {at_once: 2}
"""


def test_all_of_them_and_one_failure_stops_no_other(desk: Desk) -> None:
    home = newest()
    (desk.folder / "two.url").write_text(database(home, "fleet_two", 700) + "\n")
    env = {"ONE_URL": database(home, "fleet_one", 500), "THREE_URL": home.url("fleet_not_there")}
    policy(desk, THREE)
    done = desk.run("backup", "--all", "--json", env=env, cwd=desk.folder).expect(1)
    assert done.json["result"] == "failed" and list(done.json["databases"]) == ["one", "two", "three"]
    assert (done.json["databases"]["one"]["rows"], done.json["databases"]["two"]["rows"]) == (500, 700)
    error = done.json["databases"]["three"]["error"]
    assert error["exit_code"] == 14 and "fleet_not_there" in error["message"] + error["why"]
    lines = done.err.splitlines()
    assert {line.split(": ")[0] for line in lines} == {"one", "two", "three"}, done.err
    assert any(line.startswith("one: ok: snapshot ") for line in lines)
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 2

    # A missing variable is that database's own failure; the others go on.
    missing = desk.run("backup", "--all", "--json", env={"ONE_URL": env["ONE_URL"]}, cwd=desk.folder).expect(1)
    assert "env:THREE_URL" in missing.json["databases"]["three"]["error"]["message"]
    assert missing.json["databases"]["one"]["result"] == "ok"
    # One by its name, elsewhere by --policy; then all of two.
    single = desk.run("backup", "--name", "two", "--json", "--policy", str(desk.folder / "pgkura.yaml"), cwd=Path("/"))
    assert single.expect().json["rows"] == 700
    policy(desk, THREE.replace("  three: {url_env: THREE_URL}\n", ""))
    fine = desk.run("backup", "--all", env=env, cwd=desk.folder).expect()
    assert "fleet: ok" in fine.out


def test_the_policy_says_when_ranges_are_read_whole_again(desk: Desk) -> None:
    """For all databases, for one of them; a flag wins."""
    home = newest()
    env = {"WHOLE_URL": database(home, "fleet_whole", 20_000), "FEW_URL": database(home, "fleet_few", 20_000)}
    policy(
        desk,
        """\
increments: {rebase_share: 0}
databases:
  whole: {url_env: WHOLE_URL}
  few: {url_env: FEW_URL, increments: {rebase_share: 0.4, reread_after: 90d}}
""",
    )

    def read(*flags: str) -> list[int]:
        done = desk.run("backup", "--all", "--json", *flags, env=env, cwd=desk.folder).expect().json["databases"]
        for url in env.values():
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("UPDATE t SET v = repeat('y', 400) WHERE g % 1000 = 0")
        return [done["whole"]["bytes_read"], done["few"]["bytes_read"]]

    whole, few = read()
    assert whole == few > 8_000_000
    whole, few = read()
    assert whole > 5_000_000 and few < 500_000
    whole, few = read("--rebase-share", "0.5")
    assert whole < 500_000 and few < 500_000


def test_no_more_than_the_bound_at_once(desk: Desk) -> None:
    home = newest()
    urls = {f"N{n}_URL": database(home, f"fleet_bound_{n}", 4000) for n in range(3)}
    entries = "".join(f"  n{n}: {{url_env: N{n}_URL}}\n" for n in range(3))
    policy(desk, f"databases:\n{entries}fleet: {{at_once: 1}}\n")
    process = desk.start(
        "backup", "--all", "--max-rate", "2000000", "--policy", str(desk.folder / "pgkura.yaml"), env=urls
    )
    most, query = 0, "SELECT count(DISTINCT datname) FROM pg_stat_activity WHERE application_name LIKE 'pgkura%'"
    with psycopg.connect(home.url(), autocommit=True) as connection:
        while process.poll() is None:
            most = max(most, int((connection.execute(query.encode()).fetchone() or (0,))[0]))
            time.sleep(0.02)
    assert process.returncode == 0
    assert most == 1


def test_an_interrupt_ends_all(desk: Desk) -> None:
    home = newest()
    urls = {f"I{n}_URL": database(home, f"fleet_stop_{n}", 40_000) for n in range(3)}
    entries = "".join(f"  n{n}: {{url_env: I{n}_URL}}\n" for n in range(3))
    policy(desk, f"databases:\n{entries}")
    process = desk.start(
        "backup", "--all", "--max-rate", "1000000", "--policy", str(desk.folder / "pgkura.yaml"), env=urls
    )
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgkura%worker'"
    with psycopg.connect(home.url(), autocommit=True) as connection:

        def ours() -> int:
            return int((connection.execute(query.encode()).fetchone() or (0,))[0])

        while ours() < 2 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        deadline = time.monotonic() + 10
        while ours() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ours() == 0
    assert not list(desk.repository.glob("snapshots/*"))


def test_what_does_not_go_together(desk: Desk) -> None:
    policy(desk, "databases: {a: {url_env: A_URL}}\n")
    assert "no policy" in desk.run("backup", "--all", cwd=Path("/")).expect(2).err
    assert "it has: a" in desk.run("backup", "--name", "b", cwd=desk.folder).expect(2).err
    desk.run("backup", "--all", "--name", "a", cwd=desk.folder).expect(2)
    desk.run("backup", "--all", "--database", "postgresql://h/d", cwd=desk.folder).expect(2)
    desk.run("backup", "--policy", "pgkura.yaml", cwd=desk.folder).expect(2)
    policy(desk, "databases: {a: {url: postgresql://u:very-secret@h/d}}\n")
    refused = desk.run("backup", "--all", "--json", cwd=desk.folder).expect(2)
    assert "line 1: databases.a.url" in refused.json["error"]["message"]
    assert "very-secret" not in refused.out + refused.err
