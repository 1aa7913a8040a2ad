"""A hosted project: what its user can change of the database and of the platform's own roles is found by the proof."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.servers import versions
from tests.support.snapshot_scene import Scene, make_scene
from tests.support.supabase import Standin

from pgkura.core.outcome import FindingClass, Result
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.manifest import Manifest
from pgkura.verify.merging import plain
from pgkura.verify.proof import Proof, prove

# (name under which it must be found, the change, what undoes it), as `postgres`
CHANGES = (
    (
        "database comment",
        "COMMENT ON DATABASE postgres IS 'another'",
        "COMMENT ON DATABASE postgres IS 'the learning platform''s database'",
    ),
    (
        "database privileges",
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
    ),
    (
        "database privileges",
        "GRANT TEMPORARY ON DATABASE postgres TO lesson_worker",
        "REVOKE TEMPORARY ON DATABASE postgres FROM lesson_worker",
    ),
    (
        "database setting work_mem",
        "ALTER DATABASE postgres SET work_mem = '5MB'",
        "ALTER DATABASE postgres RESET work_mem",
    ),
    (
        "database setting TimeZone",
        "ALTER DATABASE postgres RESET TimeZone",
        "ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'",
    ),
    (
        "setting work_mem of role authenticated in the database",
        "ALTER ROLE authenticated IN DATABASE postgres SET work_mem = '5MB'",
        "ALTER ROLE authenticated IN DATABASE postgres RESET work_mem",
    ),
    (
        "settings of role anon",
        "ALTER ROLE anon SET statement_timeout = '1s'",
        "ALTER ROLE anon SET statement_timeout = '9s'",
    ),
    (
        "settings of role service_role",
        "ALTER ROLE service_role SET work_mem = '5MB'",
        "ALTER ROLE service_role RESET work_mem",
    ),
    ("settings of role postgres", "ALTER ROLE postgres RESET work_mem", "ALTER ROLE postgres SET work_mem = '8MB'"),
    ("membership of anon in lesson_readers", "REVOKE lesson_readers FROM anon", "GRANT lesson_readers TO anon"),
    (
        "membership of service_role in lesson_readers",
        "GRANT lesson_readers TO service_role",
        "REVOKE lesson_readers FROM service_role",
    ),
    ("membership of anon in service_role", "GRANT service_role TO anon", "REVOKE service_role FROM anon"),
)


@pytest.fixture(scope="module", params=[v for v in versions() if v in (15, 17)])
def backed_up(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Standin, Scene, Manifest]]:
    """A full project and its snapshot."""
    with Standin.start(request.param) as project:
        project.fill_customer()
        scene = make_scene(project.url(), tmp_path_factory.mktemp("verify") / "repository")
        yield project, scene, scene.take().manifest


def proven(scene: Scene, manifest: Manifest) -> Proof:
    """The project against its own snapshot."""
    return prove(Endpoint.parse(scene.url), scene.repo, manifest, progress=Silent(), stop=Stop())


def counted(proof: Proof) -> dict[str, str]:
    """What makes it differ."""
    kinds = (FindingClass.LOST, FindingClass.DENIED)
    return {plain(f.object): f.reason for f in proof.differences if f.cls in kinds}


def test_every_change_is_found_under_its_name(backed_up: tuple[Standin, Scene, Manifest]) -> None:
    """One by one, and undone the project is equal again."""
    _, scene, manifest = backed_up
    first = proven(scene, manifest)
    assert first.equal, counted(first)
    for name, done, undone in CHANGES:
        scene.sql(done)
        try:
            proof = proven(scene, manifest)
        finally:
            scene.sql(undone)
        assert counted(proof).keys() == {plain(name)}, (done, counted(proof))
        assert not proof.equal and proof.result is Result.INCOMPLETE
    last = proven(scene, manifest)
    assert last.equal, counted(last)


def test_what_the_platform_changes_of_its_own_is_listed_only(backed_up: tuple[Standin, Scene, Manifest]) -> None:
    """Its settings and its roles: `managed`, and still equal."""
    project, scene, manifest = backed_up
    changes = (
        ("database setting app.settings.jwt_exp", 'ALTER DATABASE postgres {} "app.settings.jwt_exp" {}', "'3600'"),
        ("settings of role authenticator", "ALTER ROLE authenticator {} session_preload_libraries {}", "''"),
        ("settings of role supabase_etl_admin", "ALTER ROLE supabase_etl_admin {} work_mem {}", "'5MB'"),
    )
    with psycopg.connect(project.admin_url, autocommit=True) as connection:
        connection.execute("GRANT CREATE ON DATABASE postgres TO dashboard_user")
        for _, sql, value in changes:
            connection.execute(sql.format("SET", f"= {value}").encode())
        try:
            proof = proven(scene, manifest)
        finally:
            connection.execute("REVOKE CREATE ON DATABASE postgres FROM dashboard_user")
            for _, sql, _ in changes:
                connection.execute(sql.format("RESET", "").encode())
    assert proof.equal, counted(proof)
    managed = {plain(f.object) for f in proof.differences if f.cls is FindingClass.MANAGED}
    assert managed >= {plain(name) for name, _, _ in changes} | {plain("database privileges")}
