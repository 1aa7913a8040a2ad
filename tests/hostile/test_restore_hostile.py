"""A restore as superuser of a tenant's database: nothing of the tenant's runs with our rights, and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support import compare, hostile
from tests.support.cli import Desk
from tests.support.psql import with_user
from tests.support.servers import Server, newest, server, versions

# Expressions with constant parts are evaluated while a definition is executed; checks and casts while rows are.
EVALUATED_BY_DEFINITIONS = r"""
CREATE SCHEMA ddl;
CREATE TABLE ddl.computed (a text, b text
    GENERATED ALWAYS AS (a || tenant.calm('constant in a generated column', 'x')) STORED);
INSERT INTO ddl.computed VALUES ('1');
CREATE TABLE ddl.keyed (a text) PARTITION BY LIST ((a || tenant.calm('constant in a partition key', 'x')));
CREATE TABLE ddl.keyed_1 PARTITION OF ddl.keyed DEFAULT;
INSERT INTO ddl.keyed VALUES ('1');
CREATE TABLE ddl.root (id integer, v text) PARTITION BY LIST (id);
CREATE TABLE ddl.leaf (id integer, v text, CHECK (tenant.calm_bool('constant in the check of a partition')));
INSERT INTO ddl.leaf VALUES (1, 'a');
ALTER TABLE ddl.root ATTACH PARTITION ddl.leaf FOR VALUES IN (1);
CREATE INDEX root_index ON ddl.root ((v || tenant.calm('constant in an attached index', 'x')));
CREATE TABLE ddl.ancestor (id integer PRIMARY KEY, v text CHECK (tenant.calm_bool('inherited check')));
CREATE TABLE ddl.heir (PRIMARY KEY (id)) INHERITS (ddl.ancestor);
ALTER TABLE ddl.heir ALTER v SET NOT NULL;
INSERT INTO ddl.heir VALUES (1, 'a');
-- a check on the whole row: pg_dump makes it after the rows, and it is then verified against them
CREATE TABLE ddl.looped (id integer);
CREATE FUNCTION ddl.looks(ddl.looped) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN RETURN tenant.spring('check of a whole row'); END $$;
INSERT INTO ddl.looped VALUES (1);
ALTER TABLE ddl.looped ADD CHECK (ddl.looks(looped));
-- a foreign key is verified by a query: casts, index predicates and statistics of its tables are part of that
CREATE TYPE ddl.shade AS ENUM ('red', 'blue');
CREATE FUNCTION ddl.shade_number(ddl.shade) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM tenant.spring('cast in a foreign key'); RETURN 1; END $$;
CREATE CAST (ddl.shade AS integer) WITH FUNCTION ddl.shade_number(ddl.shade) AS IMPLICIT;
CREATE TABLE ddl.numbers (number integer PRIMARY KEY);
CREATE TABLE ddl.shades (shade ddl.shade REFERENCES ddl.numbers (number));
INSERT INTO ddl.numbers VALUES (1), (2);
INSERT INTO ddl.shades VALUES ('red');
CREATE TABLE ddl.pages (id integer PRIMARY KEY, v text);
CREATE TABLE ddl.lines (page integer REFERENCES ddl.pages (id), v text);
INSERT INTO ddl.pages VALUES (1, 'a');
INSERT INTO ddl.lines VALUES (1, 'a');
CREATE INDEX lines_index ON ddl.lines (page) WHERE tenant.calm_bool('predicate beside a foreign key');
CREATE STATISTICS ddl.lines_statistics
    ON page, (v || tenant.calm('statistics beside a foreign key', 'x')) FROM ddl.lines;
-- domains inside other types
CREATE TYPE ddl.holder AS (v tenant.checked_text);
CREATE TABLE ddl.held (a ddl.holder, b tenant.checked_text[], c ddl.holder[]);
INSERT INTO ddl.held VALUES (ROW('x'), ARRAY['y']::tenant.checked_text[], NULL);
CREATE DOMAIN ddl.deeper AS tenant.checked_text;
CREATE TABLE ddl.deep (v ddl.deeper);
INSERT INTO ddl.deep VALUES ('x');
"""
# a routine of the superuser's that the tenant may not call
LENT_TO_NOBODY = """
CREATE FUNCTION public.promote() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN EXECUTE 'ALTER ROLE hostile_tenant SUPERUSER'; END $$;
REVOKE ALL ON FUNCTION public.promote() FROM PUBLIC;
"""
CALLS_IT = """
CREATE FUNCTION ddl.climbs(text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM public.promote(); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
CREATE TABLE ddl.climbing (v text CHECK (ddl.climbs(v)), w text GENERATED ALWAYS AS (tenant.calm('x', 'y')) STORED);
INSERT INTO ddl.climbing VALUES ('x');
"""


@pytest.fixture(params=sorted({versions()[0], versions()[-1]}))
def home(request: pytest.FixtureRequest) -> Server:
    """The oldest and the newest server here."""
    return server(request.param)


@pytest.fixture
def trapped(home: Server) -> Iterator[str]:
    """The tenant's database with every trap, as its superuser."""
    name = f"trapped_{uuid4().hex[:8]}"
    home.create_database(name)
    url = hostile.fill(home, name, event_trigger=True)
    with psycopg.connect(with_user(url, hostile.TENANT, hostile.TENANT_PASSWORD), autocommit=True) as tenant:
        tenant.execute("SET search_path = pg_catalog")
        tenant.execute("SET standard_conforming_strings = on")
        tenant.execute(EVALUATED_BY_DEFINITIONS.encode())
    with psycopg.connect(url, autocommit=True, options="-c search_path=pg_catalog") as admin:
        admin.execute(LENT_TO_NOBODY)
    with psycopg.connect(with_user(url, hostile.TENANT, hostile.TENANT_PASSWORD), autocommit=True) as tenant:
        tenant.execute("SET search_path = pg_catalog")
        tenant.execute(CALLS_IT)
    hostile.forget(url)
    yield url
    home.drop_database(name)


@pytest.fixture
def desk(tmp_path: Path, trapped: str) -> Desk:
    """A repository with a backup of the trapped database."""
    made = Desk(tmp_path)
    made.run("init").expect()
    made.run("backup", env={"DATABASE_URL": trapped}).expect()
    assert hostile.ran_as(trapped) == []
    return made


def test_nothing_of_the_tenants_runs_with_our_rights(home: Server, trapped: str, desk: Desk) -> None:
    target = home.create_database(f"back_{uuid4().hex[:8]}")
    restored = desk.run("restore", "latest", "--to", target, "--json").expect(3).json
    assert hostile.ran_as(home.url()) == []
    assert guests(home) == []
    # All came back; two foreign keys cannot be looked at again without running what they lead to.
    assert {(f["class"], f["object"]) for f in restored["skipped"]} == {
        ("denied", 'foreign key "lines_page_fkey" on "ddl"."lines"'),
        ("denied", 'foreign key "shades_shade_fkey" on "ddl"."shades"'),
    }
    compare.assert_same(trapped, target)
    home.drop_database(target.rsplit("/", 1)[1])


def guests(home: Server) -> list[str]:
    """Logins of ours that should be gone."""
    with psycopg.connect(home.url(), autocommit=True) as connection:
        return [str(n) for (n,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^pgkura'")]


def test_no_login_for_the_owner_means_no_code_unless_trusted(tmp_path: Path) -> None:
    """A superuser's table whose check is a stranger's function: named, not loaded, and loaded with --trust-code."""
    home = newest()
    source = home.create_database(f"mixed_{uuid4().hex[:8]}")
    target = home.create_database(f"mixed_back_{uuid4().hex[:8]}")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE mixed_stranger; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        connection.execute("CREATE FUNCTION public.fine(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        connection.execute("ALTER FUNCTION public.fine(text) OWNER TO mixed_stranger")
        connection.execute("CREATE TABLE public.ours (v text CHECK (public.fine(v)))")
        connection.execute("INSERT INTO public.ours VALUES ('x')")
        connection.execute("CREATE TABLE public.apart (v text)")
        connection.execute("INSERT INTO public.apart VALUES ('y')")
    desk = Desk(tmp_path)
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    refused = desk.run("restore", "latest", "--to", target, "--json").expect(3).json
    (finding,) = [f for f in refused["skipped"] if f["class"] == "lost"]
    assert finding["object"] == 'rows of "public"."ours"' and "--trust-code" in finding["reason"]
    target = home.create_database(target.rsplit("/", 1)[1])
    desk.run("restore", "latest", "--to", target, "--trust-code", "--json").expect()
    compare.assert_same(source, target)
