"""A restore into a hosted project that is killed once the triggers are there, some on tables of the platform: those
cannot be dropped and made anew, so that all is started over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from tests.fault.test_restore_goes_on import Scene
from tests.support import compare
from tests.support.cli import Desk
from tests.support.servers import binaries, needs, newest
from tests.support.supabase import APART, Standin

# An index that takes some seconds to build, while triggers are made beside it.
_SLOW = """
CREATE FUNCTION public.slowly(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.05); RETURN n; END';
CREATE TABLE public.waits (n int);
INSERT INTO public.waits SELECT generate_series(1, 100);
CREATE INDEX waits_slowly ON public.waits (public.slowly(n));
"""
# With row security on every table of the customer's the killed restore has left nothing that speaks against going on.
_SECURED = """
DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT oid FROM pg_class WHERE relowner = 'postgres'::regrole AND relkind IN ('r', 'p')
                AND NOT relrowsecurity AND relnamespace::regnamespace::text !~ '^pg_' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name);
    END LOOP; END $$
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """Two projects: a full one, and one that holds a restore which was killed."""

    scene: Scene
    full: Standin
    fresh: Standin


def _has_trigger(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'on_auth_user_created'").fetchone()
    return row == (1,)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """On 15."""
    needs("PostgreSQL 15", binaries(15) is not None)
    desk = Desk(tmp_path_factory.mktemp("hosted"))
    desk.run("init").expect()
    with Standin.start(15) as full, Standin.start(15) as fresh:
        full.fill_customer()
        with psycopg.connect(full.url(), autocommit=True) as connection:
            connection.execute(_SLOW)
            connection.execute(_SECURED)
        desk.run("backup", env={"DATABASE_URL": full.url()}).expect()
        scene = Scene(desk=desk, home=newest(), source=full.url(), target=fresh.url())
        scene.killed_when(_has_trigger)
        yield Killed(scene=scene, full=full, fresh=fresh)


def test_started_over_where_going_on_is_refused(killed: Killed) -> None:
    """The plan is to go on; as that is refused, the platform's tables are emptied: nothing is there twice."""
    with psycopg.connect(killed.fresh.url()) as connection:
        made = connection.execute("SELECT to_regnamespace('supabase_migrations') IS NOT NULL").fetchone()
        assert made == (True,), "a schema that the platform has on many projects, here made by the restore itself"
    planned = killed.scene.restore("--dry-run")
    assert [f for f in planned["skipped"] if f["class"] in ("lost", "denied")] == []
    assert any("it is gone on with" in note for note in planned["notes"]), planned["notes"]
    assert not any("emptied" in note for note in planned["notes"]), "what is loaded there stays"
    done = killed.scene.desk.run("restore", "latest", "--to", killed.fresh.url(), "--yes", "--json")
    assert [f for f in done.json["skipped"] if f["class"] in ("lost", "denied")] == []
    assert "clearing a restore that was cut short" in done.err and done.json["rows_kept"] == 0
    assert done.expect().json["proof"]["equal"] is True
    compare.assert_same(killed.full.admin_url, killed.fresh.admin_url, ignore=APART)
