"""Which keys are made in two steps, and that their text says the same."""

import pytest

from pgkura.catalog.toc import Entry
from pgkura.restore.key_steps import bare_indexes, key_steps


def _entry(defn: str, desc: str = "CONSTRAINT", tag: str = "t t_pkey") -> Entry:
    return Entry(
        dump_id=1, desc=desc, tag=tag, schema="s", owner="o", defn=defn, drop="", deps=(), table_am="", relkind="",
        catalog=0, oid=0,
    )  # fmt: skip


def _add(text: str, more: str = "") -> Entry:
    return _entry(f"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT {text};\n{more}")


@pytest.mark.parametrize(
    ("text", "index", "key"),
    [
        ("t_pkey PRIMARY KEY (id)", "t_pkey ON ONLY s.t USING btree (id)", "t_pkey PRIMARY KEY USING INDEX t_pkey"),
        (
            'u UNIQUE NULLS NOT DISTINCT (a, "B ""c") INCLUDE (d) '
            "WITH (fillfactor='70') DEFERRABLE INITIALLY DEFERRED",
            'u ON ONLY s.t USING btree (a, "B ""c") INCLUDE (d) NULLS NOT DISTINCT WITH (fillfactor=\'70\')',
            "u UNIQUE USING INDEX u DEFERRABLE INITIALLY DEFERRED",
        ),
        (
            '"予約 (x); y" UNIQUE (a)',
            '"予約 (x); y" ON ONLY s.t USING btree (a)',
            '"予約 (x); y" UNIQUE USING INDEX "予約 (x); y"',
        ),
    ],
)  # fmt: skip
def test_a_plain_key_has_two_steps(text: str, index: str, key: str) -> None:
    steps = key_steps(_add(text))
    assert steps is not None
    assert steps.index == f"CREATE UNIQUE INDEX {index};\n"
    assert steps.key == f"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT {key};\n"


def test_what_follows_the_key_follows_it_still() -> None:
    more = "\nALTER TABLE s.t CLUSTER ON t_pkey;\n"
    steps = key_steps(_add("t_pkey PRIMARY KEY (id)", more))
    assert steps is not None and steps.key.endswith(f"USING INDEX t_pkey;\n{more}")


@pytest.mark.parametrize(
    "entry",
    [
        _add("e EXCLUDE USING gist (a WITH =)"),
        _add("t PRIMARY KEY (id, valid_at WITHOUT OVERLAPS)"),
        _add("c CHECK ((a > 0))"),
        _add("t PRIMARY KEY (id) SOMETHING NEW"),
        _add("t PRIMARY KEY (id)", "DROP TABLE x;\n"),
        _add('"t" PRIMARY KEY ("id); DROP TABLE x; --)'),
        _entry("ALTER TABLE s.t\n    ADD CONSTRAINT t PRIMARY KEY (id);\n"),
        _entry("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT t PRIMARY KEY (id);\n", desc="CHECK CONSTRAINT"),
    ],
)
def test_anything_else_is_executed_as_it_is(entry: Entry) -> None:
    assert key_steps(entry) is None
    assert bare_indexes([entry]) == frozenset()


def test_what_lies_between_the_steps_is_named_as_a_dump_names_it() -> None:
    entries = [_add('"T ""k" PRIMARY KEY (id)'), _entry("CREATE INDEX i ON s.t (a);\n", desc="INDEX", tag="i")]
    assert bare_indexes(entries) == {("INDEX", "s", "T k")}
