"""Why a server could not be reached, in plain words with the next step. Pure, but for the driver's error class."""

import psycopg

from pgkura.core.errors import DatabaseError
from pgkura.postgres.endpoint import Endpoint

# (what the driver says, why, what to do next); the first match wins.
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        "network is unreachable",
        "the host has only an IPv6 address, and this machine has no IPv6",
        "on Supabase use the session pooler URL (aws-….pooler.supabase.com:5432, user postgres.<project>)",
    ),
    ("password authentication failed", "wrong password or user", "check user and password; percent-encode @ : / ? # %"),
    ("no password supplied", "the server wants a password and the URL has none", "add it to the URL or set PGPASSWORD"),
    ("sasl", "the password exchange failed", "check the password, and that the pooler supports SCRAM"),
    ("wrong password", "wrong password or user", "check user and password"),
    ("tenant or user not found", "the pooler does not know this project", "the user is postgres.<project ref>"),
    ("does not exist", "the server does not know this name", "check database and user in the URL"),
    ("server does not support ssl", "the server has no TLS", "allow it with --insecure-database only on a trusted net"),
    ("certificate", "the server's certificate could not be verified", "set sslrootcert to the provider's CA file"),
    ("no pg_hba.conf entry", "the server refuses this user, database or address", "ask its administrator"),
    ("connection refused", "nothing listens there", "check host and port, and that the server runs"),
    ("could not translate host name", "the host name is unknown", "check the host in the URL"),
    ("name or service not known", "the host name is unknown", "check the host in the URL"),
    ("failed to resolve host", "the host name is unknown", "check the host in the URL"),
    ("too many", "all connections are in use", "close idle ones, or wait; pgkura needs at least 4"),
    ("remaining connection slots", "all connections are in use", "close idle ones, or wait; pgkura needs at least 4"),
    ("timeout", "no answer in time", "check host, port and firewall"),
    ("gssapi", "the client library is too old for this pooler", "add ?gssencmode=disable to the URL"),
    ("starting up", "the server is starting", "wait a moment and run it again"),
)


def connection_failure(endpoint: Endpoint, error: psycopg.Error) -> DatabaseError:
    """The driver's words as ours; never holds the password."""
    said = " ".join(str(error).split())
    password = endpoint.parameters.get("password", "")
    if password:
        said = said.replace(password, "***")
    lower = said.lower()
    for mark, why, hint in _REASONS:
        if mark in lower:
            return DatabaseError(f"cannot connect to {endpoint.display}", detail=f"{why} ({said})", hint=hint)
    return DatabaseError(f"cannot connect to {endpoint.display}", detail=said, hint="check the URL")
