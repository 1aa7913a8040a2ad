"""Opening a connection that the watcher can tell from others, through session poolers too."""

from pgkura.core.names import quote_literal
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.session import Session, connect


def open_session(endpoint: Endpoint, application_name: str) -> Session:
    """A pinned session under this name. Poolers put their own name in place of the start-up one: set it again."""
    session = connect(endpoint, application_name=application_name)
    session.execute(f"SET application_name = {quote_literal(application_name)}")
    return session
