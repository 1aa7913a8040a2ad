"""Short-lived logins that are nobody but a table's owner.

Loading a row runs the CHECK constraints, generated columns and domains of its table with the loader's rights. SET ROLE
is no wall: a function may RESET ROLE. A login of its own is one: there is nothing above it to go back to.
"""

import secrets
from datetime import UTC, datetime, timedelta

from pgkura.core.errors import DatabaseError
from pgkura.core.names import quote_ident, quote_literal
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.session import Session, SqlError, connect

PREFIX = "pgkura_guest_"
_HOURS = 24


class Guests:
    """Makes guests on demand and removes all of them, also those of a run that was killed."""

    def __init__(self, session: Session, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint
        self._sessions: dict[str, Session] = {}
        self._refused: dict[str, str] = {}

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
                self._sessions[owner] = self._log_in(owner)
            except DatabaseError as error:
                self._refused[owner] = f"no temporary login could be made: {error.msg}"
        return self._refused.get(owner, "")

    def session(self, owner: str) -> Session:
        """A session that is the owner and nobody else; call `why_not` first."""
        return self._sessions[owner]

    def _log_in(self, owner: str) -> Session:
        name, password = PREFIX + secrets.token_hex(6), secrets.token_urlsafe(24)
        until = (datetime.now(UTC) + timedelta(hours=_HOURS)).isoformat()
        self._session.script(
            f"CREATE ROLE {quote_ident(name)} LOGIN NOINHERIT PASSWORD {quote_literal(password)} "
            f"VALID UNTIL {quote_literal(until)} IN ROLE {quote_ident(owner)}"
        )
        guest = connect(self._endpoint.with_user(name, password), application_name="pgkura restore")
        try:
            guest.execute(f"SET ROLE {quote_ident(owner)}")
        except SqlError:
            guest.close()
            raise
        return guest

    def _remove_all(self) -> None:
        found = self._session.rows(
            "SELECT rolname FROM pg_catalog.pg_roles WHERE pg_catalog.starts_with(rolname, %s)", (PREFIX,)
        )
        for (name,) in found:
            self._session.script(f"DROP ROLE {quote_ident(name)}")
