"""The closed table of what pg_dump 14 to 18 can put into a table of contents, and what we do with each kind."""

from dataclasses import dataclass
from enum import StrEnum


class Section(StrEnum):
    """When an entry belongs: before the rows, after them, or where its object is."""

    BEFORE = "before"
    AFTER = "after"
    WITH_OBJECT = "with object"
    NEVER = "never"


class Stage(StrEnum):
    """The plan's eleven stages of a restore, in its order."""

    EXTENSIONS = "extensions"
    ROLES = "roles"
    TYPES = "types"
    SCHEMA = "schema"
    VIEWS = "views"
    FUNCTIONS = "functions and triggers"
    INDEXES = "indexes and constraints"
    RLS = "row level security"
    PERMISSIONS = "permissions"
    DATA = "data"
    SEQUENCES = "sequences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where an entry's text is kept (component), when it is restored, under which stage it is shown.

    `owned`: how its owner is written: "name" (kind and name), "drop" (from its DROP statement), '' (has none).
    """

    component: str
    section: Section
    stage: Stage
    owned: str = ""


def _kind(component: str, section: Section, stage: Stage, owned: str = "") -> Kind:
    return Kind(component=component, section=section, stage=stage, owned=owned)


_B, _A, _W, _N = Section.BEFORE, Section.AFTER, Section.WITH_OBJECT, Section.NEVER

KINDS: dict[str, Kind] = {
    # settings of the archive itself
    "ENCODING": _kind("other", _N, Stage.SCHEMA),
    "STDSTRINGS": _kind("other", _N, Stage.SCHEMA),
    "SEARCHPATH": _kind("other", _N, Stage.SCHEMA),
    # the database: read as facts, applied by our own step
    "DATABASE": _kind("other", _N, Stage.SCHEMA),
    "DATABASE PROPERTIES": _kind("other", _N, Stage.SCHEMA),
    "EXTENSION": _kind("extensions", _B, Stage.EXTENSIONS),
    "SCHEMA": _kind("schema", _B, Stage.SCHEMA, "name"),
    "TYPE": _kind("types", _B, Stage.TYPES, "name"),
    "SHELL TYPE": _kind("types", _B, Stage.TYPES),
    "DOMAIN": _kind("types", _B, Stage.TYPES, "name"),
    "COLLATION": _kind("types", _B, Stage.TYPES, "name"),
    "CAST": _kind("types", _B, Stage.TYPES),
    "TRANSFORM": _kind("types", _B, Stage.TYPES),
    "CONVERSION": _kind("other", _B, Stage.TYPES, "name"),
    "OPERATOR": _kind("other", _B, Stage.TYPES, "drop"),
    "OPERATOR CLASS": _kind("other", _B, Stage.TYPES, "drop"),
    "OPERATOR FAMILY": _kind("other", _B, Stage.TYPES, "drop"),
    "ACCESS METHOD": _kind("other", _B, Stage.SCHEMA),
    "TEXT SEARCH PARSER": _kind("other", _B, Stage.SCHEMA),
    "TEXT SEARCH TEMPLATE": _kind("other", _B, Stage.SCHEMA),
    "TEXT SEARCH DICTIONARY": _kind("other", _B, Stage.SCHEMA, "name"),
    "TEXT SEARCH CONFIGURATION": _kind("other", _B, Stage.SCHEMA, "name"),
    "FOREIGN DATA WRAPPER": _kind("other", _B, Stage.SCHEMA, "name"),
    "SERVER": _kind("other", _B, Stage.SCHEMA, "name"),
    "USER MAPPING": _kind("other", _B, Stage.SCHEMA),
    "FOREIGN TABLE": _kind("schema", _B, Stage.SCHEMA, "name"),
    "TABLE": _kind("schema", _B, Stage.SCHEMA, "name"),
    "TABLE ATTACH": _kind("schema", _B, Stage.SCHEMA),
    "DEFAULT": _kind("schema", _B, Stage.SCHEMA),
    "SEQUENCE": _kind("sequences", _B, Stage.SEQUENCES, "name"),
    "SEQUENCE OWNED BY": _kind("sequences", _B, Stage.SEQUENCES),
    "PROCEDURAL LANGUAGE": _kind("functions", _B, Stage.FUNCTIONS, "name"),
    "FUNCTION": _kind("functions", _B, Stage.FUNCTIONS, "drop"),
    "PROCEDURE": _kind("functions", _B, Stage.FUNCTIONS, "drop"),
    "AGGREGATE": _kind("functions", _B, Stage.FUNCTIONS, "drop"),
    "VIEW": _kind("views", _B, Stage.VIEWS, "name"),
    "MATERIALIZED VIEW": _kind("views", _B, Stage.VIEWS, "name"),
    "RULE": _kind("views", _A, Stage.VIEWS),
    "INDEX": _kind("indexes", _A, Stage.INDEXES),
    "INDEX ATTACH": _kind("indexes", _A, Stage.INDEXES),
    "STATISTICS": _kind("indexes", _A, Stage.INDEXES, "name"),
    "CONSTRAINT": _kind("constraints", _A, Stage.INDEXES),
    "CHECK CONSTRAINT": _kind("constraints", _A, Stage.INDEXES),
    "FK CONSTRAINT": _kind("constraints", _A, Stage.INDEXES),
    "TRIGGER": _kind("triggers", _A, Stage.FUNCTIONS),
    "EVENT TRIGGER": _kind("triggers", _A, Stage.FUNCTIONS, "name"),
    "ROW SECURITY": _kind("rls", _A, Stage.RLS),
    "POLICY": _kind("rls", _A, Stage.RLS),
    "PUBLICATION": _kind("other", _A, Stage.SCHEMA, "name"),
    "PUBLICATION TABLE": _kind("other", _A, Stage.SCHEMA),
    "PUBLICATION TABLES IN SCHEMA": _kind("other", _A, Stage.SCHEMA),
    "SUBSCRIPTION": _kind("other", _A, Stage.SCHEMA, "name"),
    "SUBSCRIPTION TABLE": _kind("other", _N, Stage.SCHEMA),
    "ACL": _kind("permissions", _W, Stage.PERMISSIONS),
    "DEFAULT ACL": _kind("permissions", _A, Stage.PERMISSIONS),
    "COMMENT": _kind("other", _W, Stage.SCHEMA),
    "SECURITY LABEL": _kind("other", _W, Stage.SCHEMA),
    # rows and states: --schema-only leaves them out, our own steps carry them
    "TABLE DATA": _kind("other", _N, Stage.DATA),
    "MATERIALIZED VIEW DATA": _kind("other", _N, Stage.DATA),
    "SEQUENCE SET": _kind("other", _N, Stage.SEQUENCES),
    "BLOB": _kind("other", _N, Stage.DATA),
    "BLOB METADATA": _kind("other", _N, Stage.DATA),
    "BLOBS": _kind("other", _N, Stage.DATA),
    "STATISTICS DATA": _kind("other", _N, Stage.DATA),
}

# The kinds whose text is fingerprinted and kept as a history of its own.
COMPONENTS = (
    "extensions",
    "roles",
    "types",
    "schema",
    "views",
    "functions",
    "triggers",
    "indexes",
    "constraints",
    "rls",
    "permissions",
    "sequences",
    "other",
)
