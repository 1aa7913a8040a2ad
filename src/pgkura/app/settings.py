"""What the user said, by flag or environment, checked before anything starts.

Flags win over variables. A key variable (`PGKURA_IDENTITY`, `PGKURA_HOST_KEY`) holds a path or the key itself.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgkura.core.access import HOST_KEY_MARK, IDENTITY_MARK, resolve
from pgkura.core.errors import UsageError, WrongKey

_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})
_REFERENCES = ("env:", "file:")


def parse_switch(name: str, value: str) -> bool:
    """true/1/yes or false/0/no (any case); anything else is a usage error naming the variable."""
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise UsageError(
        f"{name}={value!r} is neither yes nor no",
        detail="a switch that is misread could start the real thing",
        hint=f"use {name}=true, 1 or yes; or false, 0 or no",
    )


def parse_time(name: str, value: str) -> datetime | None:
    """An ISO 8601 time, UTC unless it says otherwise; None for ''. Anything else is a usage error."""
    if not value:
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError as error:
        raise UsageError(f"{name}={value!r} is no time", hint="for example 2026-11-24T10:00Z") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where a key comes from: `text` when the variable held the key itself, else `path`.

    `reference` is the same for workers in other processes (core.access), '' where it would mean nothing to them.
    `chosen`: by a flag or the variable; otherwise it is what happens to lie at the usual place.
    """

    what: str
    variable: str
    path: Path | None = None
    text: str = ""
    reference: str = ""
    chosen: bool = True

    def read(self) -> str:
        """The key's text. Raises WrongKey with the place that was looked at."""
        if self.path is None:
            return self.text
        try:
            return self.path.read_text()
        except FileNotFoundError as error:
            raise WrongKey(
                f"no {self.what} at {self.path}",
                hint=f"set {self.variable} to its path or to the key itself; `pgkura init` makes a new pair",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise WrongKey(f"cannot read the {self.what} at {self.path}", detail=str(error)) from error

    def exists(self) -> bool:
        """Whether there is something to read."""
        return bool(self.text) or (self.path is not None and self.path.exists())

    def writable_path(self) -> Path:
        """The path to write a new key to; a usage error when the variable held a key."""
        if self.path is None:
            raise UsageError(
                f"{self.variable} holds a key, and `init` is about to make a new one",
                hint=f"unset {self.variable}, or set it to the path where the new {self.what} shall lie",
            )
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a verb may need; a missing value is an error only for the verb that needs it."""

    database_url: str
    database_reference: str
    repository_url: str
    identity: KeySource
    host_key: KeySource
    insecure_store: bool
    insecure_database: bool
    store_as_of: datetime | None = None

    def need_database(self) -> str:
        """The source or target URL. Raises UsageError."""
        if not self.database_url:
            raise UsageError("no database given", hint="set DATABASE_URL=postgresql://user:password@host:5432/database")
        return self.database_url

    def need_repository(self) -> str:
        """The repository URL. Raises UsageError."""
        if not self.repository_url:
            raise UsageError(
                "no repository given",
                hint="set PGKURA_REPOSITORY (or --repository) to a folder or s3://bucket/prefix",
            )
        return self.repository_url


def _key_source(
    what: str, variable: str, flag: str, variables: Mapping[str, str], default: Path, mark: str
) -> KeySource:
    value = flag or variables.get(variable, "")
    reference = "" if flag or not value else f"env:{variable}"
    if mark in value:
        return KeySource(what=what, variable=variable, text=value, reference=reference)
    path = Path(value).expanduser() if value else default
    return KeySource(
        what=what, variable=variable, path=path, reference=reference or f"file:{path.absolute()}", chosen=bool(value)
    )


def read_reference(flag: str) -> tuple[str, str]:
    """(URL, reference) of a flag that may be either; the reference is '' for a URL."""
    if not flag.startswith(_REFERENCES):
        return flag, ""
    kind, _, name = flag.partition(":")
    reference = f"file:{Path(name).expanduser().absolute()}" if kind == "file" else flag
    return resolve(reference).strip(), reference


def _database(flag: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """(URL, reference). A flag may be a reference itself: `env:NAME` or `file:PATH` keep the password out of `ps`."""
    if flag:
        return read_reference(flag)
    return variables.get("DATABASE_URL", ""), "env:DATABASE_URL"


def read_settings(
    environment: Mapping[str, str] | None = None,
    *,
    database: str = "",
    repository: str = "",
    identity: str = "",
    host_key: str = "",
    insecure_store: bool = False,
    insecure_database: bool = False,
) -> Settings:
    """Flags over environment over defaults. Raises UsageError for a malformed switch."""
    env = os.environ if environment is None else environment
    database_url, reference = _database(database, env)
    home = Path(env.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "pgkura"
    return Settings(
        database_url=database_url,
        database_reference=reference,
        repository_url=repository or env.get("PGKURA_REPOSITORY", ""),
        identity=_key_source(
            "identity",
            "PGKURA_IDENTITY",
            identity,
            env,
            home / "identity.txt",
            IDENTITY_MARK,
        ),
        host_key=_key_source(
            "host key",
            "PGKURA_HOST_KEY",
            host_key,
            env,
            home / "host.key",
            HOST_KEY_MARK,
        ),
        store_as_of=parse_time("PGKURA_STORE_AS_OF", env.get("PGKURA_STORE_AS_OF", "")),
        insecure_store=insecure_store or parse_switch("PGKURA_INSECURE_STORE", env.get("PGKURA_INSECURE_STORE", "")),
        insecure_database=insecure_database
        or parse_switch("PGKURA_INSECURE_DATABASE", env.get("PGKURA_INSECURE_DATABASE", "")),
    )
