"""How a worker in another process or on another machine finds its way without being sent a credential.

A unit of work is pickled, queued, maybe logged: it carries an Access, whose secrets are *references*:
`env:NAME` (an environment variable of the worker), `file:PATH`, or `held:NAME` (the memory of this process,
given by `hold`). `resolve` is the only place where a reference becomes a secret.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pgkura.core.errors import UsageError

_held: dict[str, str] = {}
_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """References to a database and a repository.

    database    reference to a URL
    repository  the URL itself (it never holds a credential; stores use the AWS_* variables)
    host_key    reference to the host key text, '' where none is needed
    identity    reference to the identity text, '' where none is needed
    """

    database: str
    repository: str
    host_key: str = ""
    identity: str = ""
    insecure_database: bool = False
    insecure_store: bool = False

    @property
    def references(self) -> tuple[str, ...]:
        """All references that are not empty."""
        return tuple(r for r in (self.database, self.host_key, self.identity) if r)


def hold(name: str, secret: str) -> str:
    """Keep `secret` in this process's memory; returns the reference `held:NAME`."""
    with _lock:
        _held[name] = secret
    return f"held:{name}"


def held(references: tuple[str, ...]) -> dict[str, str]:
    """The secrets behind the `held:` references, for handing to a child through its start-up pipe."""
    names = [r.removeprefix("held:") for r in references if r.startswith("held:")]
    with _lock:
        return {name: _held[name] for name in names}


def resolve(reference: str) -> str:
    """The secret behind a reference. Raises UsageError naming the reference, never the secret."""
    kind, _, name = reference.partition(":")
    if kind == "held":
        with _lock:
            if name in _held:
                return _held[name]
    elif kind == "env" and name in os.environ:
        return os.environ[name]
    elif kind == "file":
        try:
            return Path(name).read_text()
        except OSError as error:
            raise UsageError(f"cannot read {name}", detail=str(error)) from error
    raise UsageError(
        f"nothing behind the reference {reference!r} here",
        hint="every worker needs the same environment variables and key files as the machine that starts the run",
    )
