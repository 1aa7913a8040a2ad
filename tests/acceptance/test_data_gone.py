"""Somebody removed a stored object: the next backup stands on its own again, and says what happened."""

from pathlib import Path

import psycopg
from tests.support.cli import Desk
from tests.support.servers import newest


def test_whatever_object_is_gone(tmp_path: Path) -> None:
    """Each data object in turn: the backup says so if it built on it, and its snapshot is whole in any case."""
    url = newest().create_database("data_gone")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE public.slots AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 30000) i"
        )
        connection.execute("CREATE TABLE public.few AS SELECT 1 AS id")
        desk = Desk(tmp_path)
        desk.run("init").expect()
        desk.run("backup", env={"DATABASE_URL": url}).expect()
        connection.execute("UPDATE public.slots SET note = 'new' WHERE id % 1000 = 0")
        desk.run("backup", env={"DATABASE_URL": url}).expect()
        warned = 0
        for path in sorted(desk.repository.glob("data/*/*")):
            content = path.read_bytes()
            path.unlink()
            done = desk.run("backup", "--json", env={"DATABASE_URL": url}).expect().json
            assert done["result"] == "ok"
            if "warning" in done:
                assert "no longer in the store" in done["warning"]
                assert done["bytes_read"] > 0
                warned += 1
            assert desk.run("verify", done["snapshot"], "--json").expect().json["result"] == "ok"
            again = desk.run("backup", "--json", env={"DATABASE_URL": url}).expect().json
            assert "warning" not in again and again["bytes_read"] == 0, "it is built upon"
            path.write_bytes(content)
        assert warned > 0
        assert desk.run("verify", "latest", "--against", url, "--json").expect().json["proof"]["equal"] is True
