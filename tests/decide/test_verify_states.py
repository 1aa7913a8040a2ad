"""States beside definitions: every difference has one class, what is out of sight is denied, never equal."""

from dataclasses import replace
from typing import Any

import pytest

from pgkura.catalog.inventory import Versions
from pgkura.catalog.platform import detect
from pgkura.catalog.roles import effective_acl
from pgkura.core.facts import (
    DatabaseFacts,
    LargeObjectFacts,
    MembershipFacts,
    RoleFacts,
    SequenceState,
    SourceFacts,
)
from pgkura.core.outcome import FindingClass
from pgkura.core.platform import PLAIN, Platform
from pgkura.verify.states import Sides, compare_states

SUPABASE = detect(["supabase_admin", "postgres", "anon"], ["auth", "storage"])
ROLE = RoleFacts(
    name="app", superuser=False, inherit=True, createrole=False, createdb=False, login=True, replication=False,
    bypassrls=False, connection_limit=-1, valid_until="", password="SCRAM", settings=("work_mem=1MB",), comment="",
)  # fmt: skip
MEMBER = MembershipFacts(role="team", member="app", grantor="postgres", admin=False, inherit=True, set=True)
UNNAMED = (("", "1 * * * *", "CALL a()", "d", "postgres", True), ("", "2 * * * *", "CALL a()", "d", "postgres", False))
FACTS = SourceFacts(
    server_version_num=170000,
    system_identifier="1",
    database=DatabaseFacts(
        name="d", owner="o", encoding="UTF8", collate="C", ctype="C", locale_provider="c", locale="", acl=None,
        comment="c", settings=("TimeZone=UTC",), role_settings=(("app", "x=1"),), connection_limit=-1,
    ),
    tables=(),
    sequences=(SequenceState(schema="s", name="q", last_value=5, is_called=True),),
    large_objects=(LargeObjectFacts(oid=7, owner="o", size=3, acl=("o=rw/o",)),),
    roles=(ROLE, replace(ROLE, name="team")),
    memberships=(MEMBER,),
    extensions=(),
    secrets=(("key", "why", "value"), ("", "", "unnamed")),
    cron_jobs=(("nightly", "0 0 * * *", "SELECT 1", "d", "postgres", True), *UNNAMED),
)  # fmt: skip


def found(there: SourceFacts, *, platform: Platform = PLAIN, unreadable: tuple[str, ...] = (), role: str = "") -> Any:
    """(object, class) of each finding."""
    sides = Sides(
        facts=FACTS,
        there=there,
        platform=platform,
        versions=Versions(source=17, target=there.server_version_num // 10000),
        unreadable=frozenset(unreadable),
        role=role,
    )
    return [(f.object, f.cls) for f in compare_states(sides)]


def database(**more: Any) -> SourceFacts:
    """The same with another database."""
    return replace(FACTS, database=replace(FACTS.database, **more))


LOST, DENIED, BY_DESIGN = FindingClass.LOST, FindingClass.DENIED, FindingClass.BY_DESIGN
JOB = FACTS.cron_jobs[0]
CASES: list[tuple[str, SourceFacts, list[tuple[str, FindingClass]]]] = [
    ("equal", FACTS, []),
    ("sequence gone", replace(FACTS, sequences=()), [('value of sequence "s"."q"', LOST)]),
    (
        "sequence moved",
        replace(FACTS, sequences=(replace(FACTS.sequences[0], is_called=False),)),
        [('value of sequence "s"."q"', LOST)],
    ),
    (
        "sequence of the platform",
        replace(FACTS, sequences=(replace(FACTS.sequences[0], last_value=1, managed=True),)),
        [('value of sequence "s"."q"', DENIED)],
    ),
    ("role gone", replace(FACTS, roles=FACTS.roles[:1]), [('role "team"', LOST)]),
    (
        "role changed",
        replace(FACTS, roles=(replace(ROLE, createdb=True, settings=(), comment="x"), FACTS.roles[1])),
        [('role "app"', LOST), ('comment on role "app"', LOST), ('settings of role "app"', LOST)],
    ),
    (
        "another password",
        replace(FACTS, roles=(replace(ROLE, password="other"), FACTS.roles[1])),
        [('password of role "app"', LOST)],
    ),
    (
        "a password out of sight",
        replace(FACTS, roles=(replace(ROLE, password=None), FACTS.roles[1])),
        [('password of role "app"', DENIED)],
    ),
    ("never is infinity", replace(FACTS, roles=tuple(replace(r, valid_until="infinity") for r in FACTS.roles)), []),
    ("membership gone", replace(FACTS, memberships=()), [('membership of "app" in "team"', LOST)]),
    (
        "membership too many",
        replace(FACTS, memberships=(MEMBER, replace(MEMBER, role="app", member="team"))),
        [('membership of "team" in "app"', LOST)],
    ),
    (
        "membership with other options",
        replace(FACTS, memberships=(replace(MEMBER, set=False),)),
        [('membership of "app" in "team"', LOST), ('membership of "app" in "team"', LOST)],
    ),
    ("another grantor is the same", replace(FACTS, memberships=(replace(MEMBER, grantor="x"),)), []),
    ("owner", database(owner="x", acl=("=Tc/o", "o=CTc/o")), [("database owner", LOST)]),
    ("the default privileges, spelt out", database(acl=("o=CTc/o", "=Tc/o")), []),
    ("nobody may connect", database(acl=("o=CTc/o",)), [("database privileges", LOST)]),
    ("one setting more", database(settings=("TimeZone=UTC", "x=1")), [("database setting x", LOST)]),
    ("a setting changed", database(settings=("TimeZone=Asia/Tokyo",)), [("database setting TimeZone", LOST)]),
    ("a role's setting gone", database(role_settings=()), [('setting x of role "app" in the database', LOST)]),
    ("limit", database(connection_limit=5), [("database connection limit", LOST)]),
    ("comment", database(comment=""), [("database comment", LOST)]),
    ("large object gone", replace(FACTS, large_objects=()), [("large object 7", LOST)]),
    (
        "large object changed",
        replace(FACTS, large_objects=(LargeObjectFacts(oid=7, owner="x", size=4, acl=("y=r/x",), comment="c"),)),
        [
            ("large object 7", LOST),
            ("owner of large object 7", LOST),
            ("privileges of large object 7", LOST),
            ("comment on large object 7", LOST),
        ],
    ),
    ("secret gone", replace(FACTS, secrets=FACTS.secrets[:1]), [("vault secret (unnamed)", LOST)]),
    (
        "secret changed",
        replace(FACTS, secrets=(("key", "why", "other"), FACTS.secrets[1])),
        [("vault secret key", LOST), ("vault secret key", LOST)],
    ),
    ("job held", replace(FACTS, cron_jobs=((*JOB[:5], False), *UNNAMED)), [("cron job nightly", BY_DESIGN)]),
    ("job gone", replace(FACTS, cron_jobs=UNNAMED), [("cron job nightly", LOST)]),
    (
        "job changed",
        replace(FACTS, cron_jobs=((*JOB[:2], "SELECT 2", *JOB[3:]), *UNNAMED)),
        [("cron job nightly", LOST)],
    ),
    ("an unnamed job gone", replace(FACTS, cron_jobs=(JOB, UNNAMED[1])), [("cron job CALL a()", LOST)]),
    ("in another order", replace(FACTS, cron_jobs=FACTS.cron_jobs[::-1]), []),
    (
        "switched on",
        replace(FACTS, cron_jobs=(JOB, UNNAMED[0], (*UNNAMED[1][:5], True))),
        [("cron job CALL a()", LOST)],
    ),
    (
        "in a database of another name",
        replace(database(name="new"), cron_jobs=tuple((*j[:3], "new", *j[4:]) for j in FACTS.cron_jobs)),
        [],
    ),
    ("job too many", replace(FACTS, cron_jobs=(*FACTS.cron_jobs, ("more", *JOB[1:]))), [("cron job more", LOST)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "there", "expected"), CASES, ids=[c[0] for c in CASES])
def test_each_difference_has_its_class(name: str, there: SourceFacts, expected: list[tuple[str, FindingClass]]) -> None:
    """The closed list of states."""
    assert found(there) == expected


def test_what_is_out_of_sight_is_denied() -> None:
    """Not lost, and never equal."""
    gone = replace(FACTS, sequences=(), large_objects=(), secrets=())
    unreadable = ('sequence "s"."q"', "large object 7", "vault secrets")
    assert found(gone, unreadable=unreadable) == [
        ('value of sequence "s"."q"', DENIED),
        ("large object 7", DENIED),
        ("vault secrets", DENIED),
    ]


def test_the_platforms_own_is_not_the_users() -> None:
    """The owner of a hosted database, what the platform sets on it, grants to its services."""
    managed = FindingClass.MANAGED
    own = database(
        owner="x",
        acl=("=Tc/x", "x=CTc/x", "supabase_admin=C/x"),
        settings=("TimeZone=UTC", "app.settings.jwt_exp=3600"),
        role_settings=(("app", "x=1"), ("supabase_admin", "x=1")),
    )
    assert found(own, platform=SUPABASE) == [
        ("database owner", managed),
        ("database setting app.settings.jwt_exp", managed),
        ('setting x of role "supabase_admin" in the database', managed),
        ("database privileges", managed),
    ]
    mine = replace(FACTS, roles=(*FACTS.roles, replace(ROLE, name="anon", login=False)))
    assert found(mine, platform=SUPABASE) == []


def test_the_users_own_on_a_platform_is_compared() -> None:
    """Comment, privileges and settings of a hosted database; settings of and grants to the platform's open roles."""
    there = database(comment="", acl=("o=CTc/o",), settings=("TimeZone=UTC", "more=1"), role_settings=())
    assert found(there, platform=SUPABASE) == [
        ("database comment", LOST),
        ("database setting more", LOST),
        ('setting x of role "app" in the database', LOST),
        ("database privileges", LOST),
    ]
    anon, admin = (replace(ROLE, name=n, settings=(), managed=True) for n in ("anon", "supabase_admin"))
    source = replace(FACTS, roles=(*FACTS.roles, anon, admin))
    settings = ("statement_timeout=9s", "session_preload_libraries=x")
    target = replace(
        source,
        roles=(*FACTS.roles, replace(anon, settings=settings), replace(admin, settings=settings)),
        memberships=(MEMBER, replace(MEMBER, member="anon")),
    )
    sides = Sides(facts=source, there=target, platform=SUPABASE, versions=Versions(source=17, target=17))
    assert [(f.object, f.cls) for f in compare_states(sides)] == [
        ('settings of role "anon"', LOST),
        ('settings of role "supabase_admin"', FindingClass.MANAGED),
        ('membership of "anon" in "team"', LOST),
    ]


def test_options_of_grants_before_16_do_not_count() -> None:
    """An older target has none."""
    old = replace(FACTS, server_version_num=150000, memberships=(replace(MEMBER, inherit=None, set=None),))
    assert found(old) == []


def test_the_role_that_restored_is_a_member_of_what_it_made() -> None:
    """PostgreSQL 16 grants that by itself."""
    there = replace(FACTS, memberships=(MEMBER, replace(MEMBER, role="app", member="team", admin=True)))
    assert found(there, role="team") == []


def test_default_privileges_of_a_database_quote_odd_owners() -> None:
    """As aclitem prints them."""
    assert effective_acl(None, 'o "x"') == {'=Tc/"o ""x"""', '"o ""x"""=CTc/"o ""x"""'}
