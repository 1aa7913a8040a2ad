"""Errors a person can act on: what, why, and what to do next. Each class owns one documented exit code.

Vendor errors (driver, store, process) are translated into these at the door that owns the vendor, with the
original kept as `__cause__`. Messages never carry a password, a key or a row value.
"""

import re
from typing import ClassVar

# What stands between the user's name and the host in a URL that somebody gave where something else was wanted.
_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):[^\s/]*@")

# Of text that one encoding has and the other has not, whoever of the server and pg_dump says so.
UNTRANSLATABLE_HINT = (
    "a name, comment, definition or value has no equivalent in the other encoding; "
    'docs/known-faults.md, "Encodings", says how to find it'
)


def without_passwords(text: str) -> str:
    """The text with the passwords of its URLs left out."""
    return _PASSWORD.sub(r"\1:…@", text)


class PgkuraError(Exception):
    """Base of every error shown to a person as a sentence instead of a traceback.

    `msg` says what happened and where, `detail` why, `hint` what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, msg: str, *, detail: str = "", hint: str = "") -> None:
        msg = without_passwords(msg)
        super().__init__(msg)
        self.msg = msg
        self.detail = without_passwords(detail)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments do not survive default pickling, and workers raise these across processes.
        return (_rebuild, (type(self), self.msg, self.detail, self.hint))

    @property
    def reason(self) -> str:
        """What and why, in one line."""
        return f"{self.msg}: {self.detail}" if self.detail else self.msg

    def as_json(self) -> dict[str, object]:
        """The `error` of every `--json` result."""
        return {"message": self.msg, "why": self.detail, "next": self.hint, "exit_code": self.exit_code}

    def __str__(self) -> str:
        return "\n".join(
            part
            for part in (
                self.msg,
                f"  why: {self.detail}" if self.detail else "",
                f"  next: {self.hint}" if self.hint else "",
            )
            if part
        )


def _rebuild(kind: type[PgkuraError], msg: str, detail: str, hint: str) -> PgkuraError:
    return kind(msg, detail=detail, hint=hint)


class UsageError(PgkuraError):
    """The command line or an environment variable is wrong; nothing was started."""

    exit_code = 2


# Exit code 3 is `incomplete`: a result, not an error. See core.outcome.


class RepositoryNotFound(PgkuraError):
    """No repository at this place."""

    exit_code = 10


class RepositoryExists(PgkuraError):
    """`init` was pointed at a place that already holds something."""

    exit_code = 11


class WrongKey(PgkuraError):
    """The identity or host key is missing, malformed, or belongs to another repository."""

    exit_code = 12


class StoreError(PgkuraError):
    """The object store or folder could not be reached, or refused."""

    exit_code = 13


class StoreFull(StoreError):
    """No space left where the repository lies."""


class DatabaseError(PgkuraError):
    """The server could not be reached, or a statement failed."""

    exit_code = 14


class RightsError(PgkuraError):
    """The role lacks a right without which the work would be silently partial."""

    exit_code = 15


class Tampered(PgkuraError):
    """A file is damaged, forged, unsigned, or signed by an unknown hand."""

    exit_code = 16


class Unbelieved(Tampered):
    """The file may be whole, but the one that says whose signature it has is damaged."""


class FormatTooNew(PgkuraError):
    """The file was written by a later format version than this program reads."""

    exit_code = 17


class TargetNotEmpty(PgkuraError):
    """The restore target holds objects, and the user did not say that they may be touched."""

    exit_code = 18


class ToolError(PgkuraError):
    """A client program (pg_dump) is missing, too old, or failed."""

    exit_code = 19


class SourceBusy(PgkuraError):
    """The backup gave way to the application, or a stated budget (locks, connections, age) would be passed."""

    exit_code = 20


class NotConfirmed(PgkuraError):
    """A dangerous act was not confirmed."""

    exit_code = 21


class PlanOutdated(PgkuraError):
    """The world moved on between the plan and its execution."""

    exit_code = 22


class DataGone(PlanOutdated):
    """Stored data that a new snapshot would build on is gone, or about to be deleted."""


class Unreachable(PgkuraError):
    """The change log does not lead to the moment that was asked for; the hint names moments that it leads to."""

    exit_code = 23


class Interrupted(PgkuraError):
    """Stopped by the operator (SIGINT, SIGTERM). What was stored stays; a rerun continues."""

    exit_code = 130


EXIT_OK = 0
EXIT_INCOMPLETE = 3
