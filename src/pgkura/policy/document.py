"""`pgkura.yaml`, the user's plan: read at one door, checked wholly, every error with file, line, key and what to do.

It names places and never holds a secret: each database says which variable or file has its URL.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pgkura.core.errors import UsageError
from pgkura.policy.names import DEFAULT_NAME

MAX_BYTES = 1024 * 1024
_DAYS = re.compile(r"[1-9][0-9]{0,3}d")
_SECRETS = frozenset({"url", "database_url", "password", "identity", "host_key", "key", "secret"})

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Increments(_Part):
    """When ranges of a table are read whole again although their changes are known."""

    rebase_share: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="once a range stores more rows in vain than this share of those that count",
    )
    reread_after: Text | None = Field(
        default=None, description="whole days after which each range is, changed or not, e.g. 30d"
    )

    @field_validator("reread_after")
    @classmethod
    def _whole_days(cls, text: str | None) -> str | None:
        if text is not None and not _DAYS.fullmatch(text):
            raise ValueError("give whole days, for example 30d")
        return text

    @property
    def days(self) -> int | None:
        """Those of `reread_after`."""
        return None if self.reread_after is None else int(self.reread_after[:-1])


class Database(_Part):
    """One database to back up. Exactly one of `url_env` and `url_file`."""

    url_env: Variable | None = Field(default=None, description="name of the environment variable that holds its URL")
    url_file: Text | None = Field(
        default=None, description="file that holds its URL; relative paths start at the policy's folder"
    )
    repository: Text | None = Field(default=None, description="where its backups go, if not to the common repository")
    increments: Increments = Field(
        default_factory=Increments, description="rebase_share and reread_after (docs/how-to/fleet.md) for it alone"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Database":
        if (self.url_env is None) == (self.url_file is None):
            raise ValueError("give exactly one of url_env and url_file")
        return self

    def reference(self, folder: Path) -> str:
        """`env:NAME` or `file:/path`, as core.access resolves it."""
        if self.url_env is not None:
            return f"env:{self.url_env}"
        return f"file:{(folder / Path(self.url_file or '').expanduser()).absolute()}"


class Fleet(_Part):
    """Many databases at once."""

    at_once: int = Field(default=2, ge=1, le=64, description="backups that run at the same time, at most")


class Policy(_Part):
    """The whole document."""

    repository: Text | None = Field(
        default=None, description="folder or s3://bucket/prefix, for databases that name none; else PGKURA_REPOSITORY"
    )
    databases: dict[Name, Database] = Field(
        min_length=1, description="databases by name (letters, digits, dot, dash, underscore)"
    )
    increments: Increments = Field(
        default_factory=Increments, description="rebase_share and reread_after (docs/how-to/fleet.md) for all databases"
    )
    fleet: Fleet = Field(default_factory=Fleet, description="many databases at once")

    def increments_of(self, name: str) -> Increments:
        """A database's own, else what goes for all."""
        return self.increments.model_copy(update=self.databases[name].increments.model_dump(exclude_none=True))


def load_policy(path: Path) -> Policy:
    """Raises UsageError with the line and key of every fault."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the policy {path}", detail=error.strerror or "") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is too large for a policy", detail=f"more than {MAX_BYTES:,} bytes")
    try:
        tree = YAML(typ="rt", pure=True).load(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", detail=str(error)) from None
    except YAMLError as error:
        raise _unreadable(path, error) from None
    if not isinstance(tree, Mapping):
        raise UsageError(f"{path} holds no keys", hint="begin with `databases:`; see docs/how-to/fleet.md")
    try:
        return Policy.model_validate(_plain(tree))
    except ValidationError as error:
        found = [_fault(path, tree, e) for e in error.errors(include_url=False, include_input=False)]
        raise UsageError(found[0][0], detail="; ".join(f for f, _ in found[1:]), hint=found[0][1]) from None


def _unreadable(path: Path, error: YAMLError) -> UsageError:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = (error.problem if isinstance(error, MarkedYAMLError) else "") or "not YAML"
    # The parser's message may quote the document; its problem's first line does not quote values.
    return UsageError(f"{path}{line}: {problem.splitlines()[0]}", hint="keys and values as `key: value`, two spaces in")


def _fault(path: Path, tree: Mapping[str, Any], error: Any) -> tuple[str, str]:
    """(what, hint) of one of pydantic's findings. Values are never quoted: one could be a misplaced secret."""
    where = [str(part) for part in error["loc"] if part != "[key]"]
    key = ".".join(where)
    text = str(error["msg"]).removeprefix("Value error, ")
    hint = "see docs/how-to/fleet.md for all keys"
    if error["type"] == "extra_forbidden":
        text = "no such key"
        known = _known(where[:-1])
        hint = f"known here: {', '.join(known)}"
        if where[-1].lower() in _SECRETS:
            hint = "a policy holds no secrets: name the variable (url_env) or file (url_file) instead"
    elif error["type"] == "missing":
        text = "is missing"
    return f"{path}, line {_line(tree, where)}: {key}: {text}", hint


def _known(where: list[str]) -> list[str]:
    part: type[BaseModel] = Policy
    if where[-1:] == ["increments"]:
        part = Increments
    elif where[:1] == ["databases"]:
        part = Database
    elif where[:1] == ["fleet"]:
        part = Fleet
    return sorted(part.model_fields)


def _line(tree: Any, where: Iterable[str]) -> int:
    """Of the deepest key on the way that the document has."""
    line = 1
    for part in where:
        if not isinstance(tree, Mapping) or part not in tree:
            break
        line = tree.lc.key(part)[0] + 1  # type: ignore[attr-defined]
        tree = tree[part]
    return line


def _plain(tree: Any) -> Any:
    """The parser's own containers and strings as Python's."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    if isinstance(tree, bool) or tree is None:
        return tree
    for kind in (int, float, str):
        if isinstance(tree, kind):
            return kind(tree)
    return tree  # tagged values and dates: no key takes one, and the check says so


def schema() -> dict[str, Any]:
    """JSON Schema of the document, for editors."""
    made = Policy.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = DEFAULT_NAME
    return made
