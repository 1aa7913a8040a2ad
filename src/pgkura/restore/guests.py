"""Short-lived logins that are nobody but a table's owner.

Loading a row runs the CHECK constraints, generated columns and domains of its table with the loader's rights. SET ROLE
is no wall: a function may RESET ROLE. A login of its own is one: there is nothing above it to go back to. The guest
inherits what the owner may, and gets what no archive entry has given anybody yet: the schemas, and those routines that
run with their caller's rights.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock

from pgkura.core.errors import DatabaseError
from pgkura.core.names import quote_ident, quote_literal
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError

_HOURS = 24
_UNKNOWN_ROLE = "42704"


class Guests:
    """Makes guests on demand and removes all of them, also those of a run that was killed. Hold `lock` while using."""

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint
        self._sessions: dict[str, Session] = {}
        self._names: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._given: set[tuple[str, str]] = set()
        self._superusers: frozenset[str] | None = None
        self.lock = Lock()

    def __enter__(self) -> "Guests":
        self._remove_all()
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions.values():
            session.close()
        if not self._session.broken:
            self._remove_all()

    def why_not(self, owner: str) -> str:
        """'' when a guest for this owner can log in; else the reason."""
        if owner not in self._sessions and owner not in self._refused:
            try:
                self._log_in(owner)
            except DatabaseError as error:
                if self._session.broken:
                    raise
                self._refused[owner] = f"no temporary login could be made: {error.msg}"
        return self._refused.get(owner, "")

    def session(self, owner: str) -> Session:
        """A session that may do what the owner may and nothing more; call `why_not` first."""
        return self._sessions[owner]

    def name(self, owner: str) -> str:
        """The guest's name, quoted."""
        return quote_ident(self._names[owner])

    def admit(self, owner: str) -> None:
        """Let the guest into the schemas and harmless routines that exist by now."""
        guest = self.name(owner)
        schemas = [f"USAGE ON SCHEMA {quote_ident(s)}" for (s,) in self._session.rows(query("target", "user_schemas"))]
        routines = [f"EXECUTE ON {r}" for (r,) in self._session.rows(query("target", "harmless_routines"))]
        for right in (*schemas, *routines):
            if (owner, right) not in self._given:
                self._given.add((owner, right))
                self._grant(f"GRANT {right} TO {guest}")

    @contextmanager
    def lent(self, owner: str, rights: Sequence[str]) -> Iterator[Session]:
        """The guest's session, with these rights (`CREATE ON SCHEMA x`) for the time of one statement."""
        for right in rights:
            self._grant(f"GRANT {right} TO {self.name(owner)}")
        try:
            yield self._sessions[owner]
        finally:
            for right in rights if not self._session.broken else ():
                self._grant(f"REVOKE {right} FROM {self.name(owner)}")

    def _grant(self, sql: str) -> None:
        try:
            self._session.execute(sql)
        except SqlError:
            # Not ours to grant: the guest then has what its owner has.
            if self._session.broken:
                raise

    def _log_in(self, owner: str) -> None:
        if owner in self._all_superusers():
            self._refused[owner] = "its owner is a superuser"
            return
        name = str(self._session.one(query("target", "guest_prefix"))[0]) + secrets.token_hex(6)
        password = secrets.token_urlsafe(24)
        until = (datetime.now(UTC) + timedelta(hours=_HOURS)).isoformat()
        self._session.script(
            f"CREATE ROLE {quote_ident(name)} LOGIN INHERIT PASSWORD {quote_literal(password)} "
            f"VALID UNTIL {quote_literal(until)} IN ROLE {quote_ident(owner)}"
        )
        self._names[owner] = name
        # What the guest creates must be given to its owner by us, who then have to be its members; superusers are.
        self._try(f"GRANT {quote_ident(name)} TO CURRENT_USER")
        self.admit(owner)
        self._sessions[owner] = connect(self._endpoint.with_user(name, password), application_name="pgkura restore")

    def _all_superusers(self) -> frozenset[str]:
        if self._superusers is None:
            rows = self._session.rows("SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper")
            self._superusers = frozenset(name for (name,) in rows)
        return self._superusers

    def _remove_all(self) -> None:
        for (name,) in self._session.rows(query("target", "guests")):
            guest = quote_ident(name)
            # Dropping what a role owns takes membership in it.
            self._try(f"GRANT {guest} TO CURRENT_USER")
            self._try(f"DROP OWNED BY {guest}")
            self._session.script(f"DROP ROLE IF EXISTS {guest}")

    def _try(self, sql: str) -> None:
        try:
            self._session.execute(sql)
        except SqlError as error:
            if self._session.broken or error.sqlstate == _UNKNOWN_ROLE:
                raise
