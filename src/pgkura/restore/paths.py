"""Code that names things without a schema needs the search_path it was written under; whether that is safe is asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pgkura.catalog.roles import set_clause
from pgkura.core.facts import SourceFacts
from pgkura.core.names import quote_literal
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.loads import Load

# Errors that a different search_path may cure.
NAME_ERRORS = frozenset({"42883", "42704", "42P01", "42725", "3F000"})


@contextmanager
def under_path(session: Session, clause: str) -> Iterator[None]:
    """With the source's search_path; back to the empty one in any case."""
    session.execute(clause)
    try:
        yield
    finally:
        if not session.broken:
            session.rollback()
            session.execute("SET search_path = ''")


def search_path(facts: SourceFacts, owner: str) -> str:
    """`SET search_path TO …` as a session of the owner had it at the source."""
    role = next((r for r in facts.roles if r.name == owner), None)
    stored: Sequence[str] = (
        *(s for r, s in facts.database.role_settings if r == owner),
        *(role.settings if role is not None else ()),
        *facts.database.settings,
        'search_path="$user", public',
    )
    found = next(s for s in stored if s.startswith("search_path="))
    # The loading session is not the owner: $user would be another schema.
    return set_clause(found).replace("'$user'", quote_literal(owner).strip() if owner else "'$user'")


def trusted_path(session: Session, clause: str) -> bool:
    """Whether nobody else could have put a function, operator, type or relation in the way there.

    A function of ours that names things without a schema would otherwise find theirs, with our rights.
    """
    try:
        with under_path(session, clause):
            (schemas,) = session.one("SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]")
        return not session.one(query("target", "strangers_in_schemas"), (schemas,))[0]
    except SqlError:
        if session.broken:
            raise
        return False


class Paths:
    """The search_path a table may be loaded under when its checks ask for one; '' where that is not safe.

    trust_code  it is always safe
    """

    def __init__(self, session: Session, facts: SourceFacts, *, trust_code: bool) -> None:
        self._session = session
        self._facts = facts
        self._trust_code = trust_code
        self._safe: dict[str, bool] = {}

    def of(self, load: Load) -> str:
        """A SET clause, or ''."""
        if load.managed or load.facts is None:
            return ""
        clause = search_path(self._facts, load.facts.owner)
        if clause not in self._safe:
            self._safe[clause] = self._trust_code or trusted_path(self._session, clause)
        return clause if self._safe[clause] else ""
