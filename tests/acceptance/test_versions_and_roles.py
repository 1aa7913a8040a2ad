"""From each older version to each newer one, as a plain owner, and what a role may not see."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.support import compare, nasty
from tests.support.cli import Desk
from tests.support.servers import blank, blank_as_it_is, server, versions

PAIRS = [(a, b) for a in versions() for b in versions() if a < b]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


# What PostgreSQL itself prints or stores otherwise in a newer major; each with the pairs it may appear in.
EXCEPTIONS: tuple[tuple[str, Callable[[int, int], bool]], ...] = ()


def exceptions(old: int, new: int) -> list[str]:
    """The patterns that hold for this pair."""
    return [pattern for pattern, holds in EXCEPTIONS if holds(old, new)]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_from_older_to_newer(old: int, new: int, desk: Desk) -> None:
    """Equal by our proof, and by the newest pg_dump of both sides, rows, sequences, large objects, roles, settings."""
    source = blank(old).create_database(f"from_{old}")
    nasty.fill(blank_as_it_is(old), f"from_{old}", bound_for=server(new))
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    target = blank(new).create_database(f"from_{old}_to_{new}")
    restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
    assert restored["proof"]["equal"] is True
    assert {f["class"] for f in restored["skipped"]} <= {"by_design"}
    compare.assert_same(source, target, ignore=exceptions(old, new))


@pytest.mark.parametrize("version", versions())
def test_plain_owner(version: int, desk: Desk) -> None:
    """What an owner can create and read comes back to an owner; hashes he may not read are named, then waived."""
    home = server(version)
    filled = nasty.fill(home, f"owned_{version}", role="owner")
    told = desk.run("backup", "--json", env={"DATABASE_URL": filled.owner_url}).expect(3).json
    denied = [f["object"] for f in told["skipped"] if f["class"] == "denied"]
    assert denied and all(name.startswith("password of role ") for name in denied)
    waivers = [word for name in denied for word in ("--accept", name)]
    again = desk.run("backup", "--json", *waivers, env={"DATABASE_URL": filled.owner_url}).expect().json
    assert set(again["accepted"]) == set(denied)

    home.create_database(f"owned_{version}_back")
    owner = urlsplit(filled.owner_url).username
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE owned_{version}_back OWNER TO "{owner}"'.encode())
    if version < 15:  # there `public` belongs to the superuser until it is handed over, as in the source
        with psycopg.connect(home.url(f"owned_{version}_back"), autocommit=True) as connection:
            connection.execute(f'ALTER SCHEMA public OWNER TO "{owner}"'.encode())
    target = filled.owner_url.replace(f"/owned_{version}", f"/owned_{version}_back")
    restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
    assert restored["result"] == "ok" and set(denied) <= set(restored["accepted"])
    compare.assert_same(filled.url, home.url(f"owned_{version}_back"))


def test_forced_row_security_is_a_named_error_before_the_first_byte(desk: Desk) -> None:
    """A role that policies bind never makes a filtered backup."""
    home = server(versions()[-1])
    filled = nasty.fill(home, "forced", role="owner", force_rls=True)
    before = sorted(p.name for p in desk.repository.rglob("*"))
    refused = desk.run("backup", env={"DATABASE_URL": filled.owner_url}).expect(15)
    assert "row level security" in refused.err and "BYPASSRLS" in refused.err
    assert sorted(p.name for p in desk.repository.rglob("*")) == before


def test_a_hundred_megabyte_value(desk: Desk) -> None:
    """It comes back, and memory stays bounded by the value."""
    home = server(versions()[-1])
    source = home.create_database("huge")
    nasty.fill(home, "huge", big_value_mb=100)
    backup = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    assert backup["peak_memory_bytes"] < 600_000_000
    target = home.create_database("huge_back")
    desk.run("restore", "latest", "--to", target).expect()
    compare.assert_same(source, target)
