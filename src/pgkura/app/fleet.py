"""The policy's databases become live objects, each when its turn comes: what one lacks is its own failure."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.core.errors import UsageError
from pgkura.policy.names import DEFAULT_NAME
from pgkura.repository.repository import Repository

if TYPE_CHECKING:
    from pgkura.policy.document import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What a command line says for all databases."""

    repository: str = ""
    host_key: str = ""
    insecure_store: bool = False
    insecure_database: bool = False


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A policy, the flags that go for all its databases, and the repositories they share."""

    policy: "Policy"
    folder: Path
    flags: Flags
    _opened: dict[str, Repository] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def names(self, wanted: Sequence[str] = ()) -> list[str]:
        """All names, or those wanted. Raises UsageError for one that the policy has not."""
        known = list(self.policy.databases)
        for name in wanted:
            if name not in known:
                raise UsageError(f"the policy has no database {name!r}", hint=f"it has: {', '.join(known)}")
        return list(wanted) or known

    def composition(self, name: str) -> Composition:
        """Of one database. Raises UsageError when its variable or file is missing."""
        database = self.policy.databases[name]
        return Composition(
            read_settings(
                database=database.reference(self.folder),
                repository=self.flags.repository or database.repository or self.policy.repository or "",
                host_key=self.flags.host_key,
                insecure_store=self.flags.insecure_store,
                insecure_database=self.flags.insecure_database,
            )
        )

    def open_repository(self, composition: Composition) -> Repository:
        """One object per place: its counters and its index are shared by the backups that write there."""
        url = composition.settings.need_repository()
        with self._lock:
            if url not in self._opened:
                self._opened[url] = composition.repository(need_host=True)
            return self._opened[url]


def find_policy(flag: str, environment: Mapping[str, str] | None = None) -> Path:
    """--policy, PGKURA_POLICY, or ./pgkura.yaml. Raises UsageError when there is none."""
    env = os.environ if environment is None else environment
    given = flag or env.get("PGKURA_POLICY", "")
    path = Path(given or DEFAULT_NAME).expanduser()
    if not given and not path.exists():
        raise UsageError(
            f"no policy: there is no {DEFAULT_NAME} here",
            hint="give --policy FILE or PGKURA_POLICY; docs/how-to/fleet.md shows one",
        )
    return path


def open_fleet(path: Path, flags: Flags) -> Fleet:
    """Raises UsageError for whatever is wrong with the document."""
    from pgkura.policy.document import load_policy  # its parsers take as long to load as all of us

    return Fleet(policy=load_policy(path), folder=path.absolute().parent, flags=flags)
