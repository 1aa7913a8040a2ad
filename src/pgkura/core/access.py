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

IDENTITY_MARK = "AGE-SECRET-KEY-1"
HOST_KEY_MARK = "pgkura-host-key"
_held: dict[str, str] = {}
_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """References to a database and a repository.

    database    reference to a URL
    repository  the URL itself (it never holds a credential; stores use the AWS_* variables)
    host_key    reference to the host key text, '' where none is needed
    identity    reference to the identity text, '' where none is needed
    run         whose work it is: what workers keep open belongs to one run
    """

    database: str
    repository: str
    host_key: str = ""
    identity: str = ""
    insecure_database: bool = False
    insecure_store: bool = False
    run: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """All references that are not empty."""
        return tuple(r for r in (self.database, self.host_key, self.identity) if r)


def hold(name: str, secret: str) -> str:
    """Keep `secret` in this process's memory; returns the reference `held:NAME`."""
    with _lock:
        _held[name] = secret
    return f"held:{name}"


def own_access(name: str, database_url: str, repository: str) -> Access:
    """For the threads of this process, which share an open repository."""
    return Access(database=hold(name, database_url), repository=repository)


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


def resolve_key(reference: str, mark: str) -> str:
    """A key's text: a variable may hold the key itself (known by its mark) or the path of its file."""
    text = resolve(reference)
    if reference.startswith("env:") and mark not in text:
        return resolve(f"file:{Path(text.strip()).expanduser()}")
    return text


def shareable(access: Access) -> None:
    """Raises UsageError naming the first reference that means nothing on another machine."""
    for what, reference in (
        ("database URL", access.database),
        ("host key", access.host_key),
        ("identity", access.identity),
    ):
        if reference and reference.partition(":")[0] not in ("env", "file"):
            raise UsageError(
                f"the {what} cannot be used by workers elsewhere: it is a `{reference.partition(':')[0]}:` reference",
                detail="it was given to this process alone (by a flag), and no credential is ever sent to a worker",
                hint="give it by the variable that the workers have too, or as env:NAME or file:/path",
            )
