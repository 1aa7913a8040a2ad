"""Anti-joins find every orphan that a load without triggers lets in, and never run a tenant's code."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.servers import server, versions

from pgkura.core.outcome import FindingClass
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.verify.foreign_keys import check_foreign_key, read_foreign_keys

SCHEMA = """
CREATE SCHEMA f; SET search_path = f;
CREATE TABLE "Parent" (a integer, b text, c bigint UNIQUE, PRIMARY KEY (a, b));
INSERT INTO "Parent" VALUES (1, 'x', 10), (2, 'y', 20);
CREATE TABLE simple (n integer, a integer, b text, FOREIGN KEY (a, b) REFERENCES "Parent");
CREATE TABLE swapped (b text, a integer, FOREIGN KEY (b, a) REFERENCES "Parent" (b, a));
CREATE TABLE "full" (n integer, a integer, b text, FOREIGN KEY (a, b) REFERENCES "Parent" MATCH FULL);
CREATE TABLE other_type (c smallint REFERENCES "Parent" (c) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE itself (id integer PRIMARY KEY, up integer REFERENCES itself);
CREATE DOMAIN word AS varchar(20);
CREATE TABLE words (w text PRIMARY KEY); INSERT INTO words VALUES ('a');
CREATE TABLE by_domain (w word REFERENCES words);
CREATE TABLE parts (id integer, k integer, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
INSERT INTO parts VALUES (1, 1), (2, 2);
CREATE TABLE to_parts (id integer, k integer, FOREIGN KEY (id, k) REFERENCES parts);
CREATE TABLE from_parts (id integer, k integer, FOREIGN KEY (id, k) REFERENCES parts) PARTITION BY LIST (k);
CREATE TABLE from_parts_1 PARTITION OF from_parts FOR VALUES IN (1, 9);
CREATE TABLE heir (extra text) INHERITS (words);
INSERT INTO heir VALUES ('only in the heir', '');
CREATE TABLE to_words (w text REFERENCES words);
CREATE TABLE heir_of_referring () INHERITS (to_words);
INSERT INTO heir_of_referring VALUES ('its parent''s key says nothing about it');
CREATE TABLE later (a integer REFERENCES itself);
ALTER TABLE later DROP CONSTRAINT later_a_fkey;
INSERT INTO later VALUES (77);
ALTER TABLE later ADD CONSTRAINT later_a FOREIGN KEY (a) REFERENCES itself NOT VALID;
"""
GOOD = """
SET search_path = f;
INSERT INTO simple VALUES (1, 1, 'x'), (2, NULL, 'nothing'), (3, 99, NULL), (4, NULL, NULL);
INSERT INTO swapped VALUES ('x', 1);
INSERT INTO "full" VALUES (1, 2, 'y'), (2, NULL, NULL);
INSERT INTO other_type VALUES (10), (NULL);
INSERT INTO itself VALUES (1, 1), (2, 1), (3, NULL);
INSERT INTO by_domain VALUES ('a');
INSERT INTO to_parts VALUES (1, 1), (2, 2);
INSERT INTO from_parts VALUES (1, 1);
INSERT INTO to_words VALUES ('a');
"""
# what is inserted while triggers are off, and how many orphans of which constraint it makes
ORPHANS = (
    ("INSERT INTO f.simple VALUES (9, 1, 'y'), (9, 2, 'x')", "simple_a_b_fkey", 2),
    ("INSERT INTO f.swapped VALUES ('y', 1)", "swapped_b_a_fkey", 1),
    ("INSERT INTO f.\"full\" VALUES (9, 1, NULL), (9, 1, 'y'), (9, NULL, 'x')", "full_a_b_fkey", 3),
    ("INSERT INTO f.other_type VALUES (11)", "other_type_c_fkey", 1),
    ("INSERT INTO f.itself VALUES (4, 5)", "itself_up_fkey", 1),
    ("INSERT INTO f.by_domain VALUES ('b')", "by_domain_w_fkey", 1),
    ("INSERT INTO f.to_parts VALUES (1, 2)", "to_parts_id_k_fkey", 1),
    ("INSERT INTO f.from_parts VALUES (9, 9)", "from_parts_id_k_fkey", 1),
    ("INSERT INTO f.to_words VALUES ('only in the heir')", "to_words_w_fkey", 1),
    ("DELETE FROM f.words WHERE w = 'a'", "by_domain_w_fkey", 1),
)


@pytest.fixture(scope="module", params=versions())
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with keys of every kind."""
    home = server(request.param)
    made = home.create_database("keys")
    with psycopg.connect(made, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute(GOOD)
    yield made
    home.drop_database("keys")


def orphans(session: Session) -> dict[str, str]:
    """Reasons by constraint."""
    keys, denied = read_foreign_keys(session)
    assert not denied, denied
    found = {key.name: check_foreign_key(session, key) for key in keys}
    return {name: finding.reason for name, finding in found.items() if finding is not None}


def test_whole_keys_have_no_orphans(url: str) -> None:
    """NULLs under MATCH SIMPLE and FULL, partitions on both sides, inheritance, a key that is not validated."""
    with connect(Endpoint.parse(url), application_name="test") as session:
        session.begin()
        assert orphans(session) == {}
        names = [key.name for key in read_foreign_keys(session)[0]]
        assert len(names) == len(set(names)) == 9 and "later_a" not in names


@pytest.mark.parametrize(("statement", "name", "count"), ORPHANS)
def test_orphans_are_found_and_counted(url: str, statement: str, name: str, count: int) -> None:
    """Each in a transaction that is rolled back."""
    with connect(Endpoint.parse(url), application_name="test") as session:
        session.begin(read_only=False)
        session.replica_role()
        session.execute(statement)
        found = orphans(session)
        session.rollback()
        assert found[name].startswith(f"{count} rows refer to rows of"), found


def test_periods_must_be_covered() -> None:
    """A temporal key: several referenced periods together may cover one; a gap is an orphan."""
    home = server(18)
    with psycopg.connect(home.create_database("periods"), autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE price (item int4range, valid daterange, PRIMARY KEY (item, valid WITHOUT OVERLAPS));
            CREATE TABLE sale (item int4range, during daterange,
                               FOREIGN KEY (item, PERIOD during) REFERENCES price (item, PERIOD valid));
            INSERT INTO price VALUES ('[1,2)', '[2026-01-01,2026-02-01)'), ('[1,2)', '[2026-02-01,2026-03-01)'),
                                     ('[1,2)', '[2026-04-01,2026-05-01)'), ('[2,3)', '[2026-01-01,2026-02-01)');
            INSERT INTO sale VALUES ('[1,2)', '[2026-01-15,2026-02-15)'), (NULL, '[2026-01-15,2027-02-15)');
        """)
    with connect(Endpoint.parse(home.url("periods")), application_name="test") as session:
        session.begin(read_only=False)
        assert orphans(session) == {}
        session.replica_role()
        session.execute(
            "INSERT INTO public.sale VALUES ('[1,2)', '[2026-02-15,2026-04-15)'), ('[2,3)', '[2026-02-01,2026-02-02)')"
        )
        assert orphans(session)["sale_item_during_fkey"].startswith("2 rows")
        session.rollback()


@pytest.mark.parametrize("version", versions())
def test_another_roles_code_is_not_run(version: int) -> None:
    """An implicit cast of a tenant's stands between the column and the operator: named, not executed."""
    home = server(version)
    with psycopg.connect(home.create_database("trap"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS trapper")
        connection.execute("CREATE ROLE trapper")
        connection.execute("GRANT CREATE ON SCHEMA public TO trapper")
        connection.execute("SET ROLE trapper")
        connection.execute("""
            CREATE TYPE public.bait AS (n integer);
            CREATE TABLE public.log (who text);
            CREATE FUNCTION public.sprung(public.bait) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
                $$ BEGIN RAISE EXCEPTION 'sprung as %', current_user; END $$;
            CREATE CAST (public.bait AS integer) WITH FUNCTION public.sprung(public.bait) AS IMPLICIT;
            CREATE TABLE public.target (id integer PRIMARY KEY);
            CREATE TABLE public.trap (b public.bait REFERENCES public.target);
            INSERT INTO public.target VALUES (1);
        """)
        connection.execute("RESET ROLE")
        connection.execute("SET session_replication_role = replica")
        connection.execute("INSERT INTO public.trap VALUES (ROW(2))")
    with connect(Endpoint.parse(home.url("trap")), application_name="test") as session:
        keys, denied = read_foreign_keys(session)
        assert keys == []
        assert [(f.cls, f.object) for f in denied] == [
            (FindingClass.DENIED, 'foreign key "trap_b_fkey" on "public"."trap"')
        ]
    home.drop_database("trap")
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE trapper")
