"""Where a server is and how it may be spoken to: one URL, checked before the first packet."""

import ipaddress
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProgrammingError

from pgkura.core.errors import UsageError

_WEAK = frozenset({"disable", "allow", "prefer"})
_STRONG = frozenset({"require", "verify-ca", "verify-full"})
_TRANSACTION_PORT = 6543
# libpq parameter → environment variable, for child programs (PostgreSQL documentation, 34.15).
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
_HINT = "write it as postgresql://user:password@host:5432/database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, a database and a user. Its repr and `display` never show the password."""

    parameters: dict[str, str] = field(repr=False)
    pooler: str
    local: bool

    @classmethod
    def parse(cls, url: str, *, insecure: bool = False) -> "Endpoint":
        """Read a libpq URL or conninfo string. Raises UsageError for a malformed or unsafe one.

        Off this machine TLS is required: `sslmode=require` is the default (`verify-full` when a root
        certificate is given); weaker modes are refused unless `insecure`.
        """
        parameters = _parse(url)
        host = parameters.get("host", "")
        if "," in host:
            raise UsageError("a URL with several hosts", hint="name the one server to work on")
        if "options" in parameters:
            raise UsageError(
                "a URL with `options`",
                detail="start-up options are dropped by poolers and can change how values print",
                hint="remove `options` from the URL",
            )
        local = _is_local(host)
        mode = parameters.get("sslmode", "")
        if not local and not mode:
            parameters["sslmode"] = "verify-full" if parameters.get("sslrootcert") else "require"
        elif not local and mode in _WEAK and not insecure:
            raise UsageError(
                f"sslmode={mode} to {host}",
                detail="everything, password included, could travel in clear text",
                hint="use sslmode=require or verify-full, or waive it with --insecure-database",
            )
        elif mode and mode not in _WEAK | _STRONG:
            raise UsageError(f"unknown sslmode {mode!r}", hint="require, verify-ca or verify-full")
        pooler = _pooler(host, parameters.get("port", ""), parameters.get("user", ""))
        return cls(parameters=parameters, pooler=pooler, local=local)

    @property
    def host(self) -> str:
        """Host name, address or socket directory ('' = libpq's default)."""
        return self.parameters.get("host", "")

    @property
    def port(self) -> int:
        """TCP port, 5432 by default."""
        return int(self.parameters.get("port", "") or 5432)

    @property
    def database(self) -> str:
        """Database name, by default the user's."""
        return self.parameters.get("dbname") or self.user

    @property
    def user(self) -> str:
        """Role to log in as, '' = libpq's default."""
        return self.parameters.get("user", "")

    @property
    def display(self) -> str:
        """`user@host:port/database`, for plans, logs and errors."""
        return f"{self.user}@{self.host or 'local'}:{self.port}/{self.database}"

    def conninfo(self, **more: str | int) -> str:
        """For the driver; holds the password, never to be shown."""
        return make_conninfo(**{**self.parameters, **{k: str(v) for k, v in more.items()}})

    def environment(self) -> dict[str, str]:
        """PG* variables for a child program: its argv then needs neither address nor password."""
        return {_VARIABLES[k]: v for k, v in self.parameters.items() if k in _VARIABLES and v}

    def with_user(self, name: str, password: str) -> "Endpoint":
        """The same database under another login (a pooler's `role.project` form is kept)."""
        suffix = self.user.partition(".")[2]
        user = f"{name}.{suffix}" if self.pooler and suffix else name
        return replace(self, parameters={**self.parameters, "user": user, "password": password})

    def with_database(self, name: str) -> "Endpoint":
        """The same server and user, another database."""
        return replace(self, parameters={**self.parameters, "dbname": name})

    def url(self) -> str:
        """As a URL again; holds the password, never to be shown."""
        known = dict(self.parameters)
        user, password = known.pop("user", ""), known.pop("password", "")
        host, port, database = known.pop("host", ""), known.pop("port", ""), known.pop("dbname", "")
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        if host.startswith("/"):
            known["host"], host = host, ""
        query = "&".join(f"{k}={quote(v, safe='')}" for k, v in sorted(known.items()))
        place = f"[{host}]" if ":" in host else host
        return (
            "postgresql://"
            + (f"{login}@" if login else "")
            + place
            + (f":{port}" if port else "")
            + f"/{quote(database, safe='')}"
            + (f"?{query}" if query else "")
        )


def _parse(url: str) -> dict[str, str]:
    text = url.strip()
    if not text:
        raise UsageError("an empty database URL", hint=_HINT)
    try:
        parsed = conninfo_to_dict(text)
    except ProgrammingError:
        # libpq's own message may quote the URL, password included.
        raise UsageError("the database URL cannot be read", detail=_why(text), hint=_HINT) from None
    parameters = {k: str(v) for k, v in parsed.items() if v is not None}
    port = parameters.get("port", "")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise UsageError("the database URL has a port that is no port", hint=_HINT)
    return parameters


def _why(text: str) -> str:
    if "://" not in text:
        return "it is neither postgresql://… nor key=value pairs"
    scheme = text.split("://", 1)[0]
    if scheme not in ("postgres", "postgresql"):
        return f"its scheme is {scheme!r}, not postgresql"
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        return "it has no host, or the password holds a character that must be percent-encoded (@ : / ? # %)"
    unquote(text)
    return "a part of it is malformed; a password with @ : / ? # % must be percent-encoded"


def _is_local(host: str) -> bool:
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pooler(host: str, port: str, user: str) -> str:
    """'' for a direct connection, 'session' or 'transaction' (facts: Supavisor names its users `role.project`)."""
    pooled = "pooler." in host or ("." in user and host.endswith((".supabase.com", ".supabase.co")))
    if port == str(_TRANSACTION_PORT):
        return "transaction"
    return "session" if pooled else ""


def refuse_transaction_pooler(endpoint: Endpoint) -> None:
    """Raises UsageError when the URL alone shows a pooler in transaction mode."""
    if endpoint.pooler == "transaction":
        raise transaction_pooler(endpoint)


def transaction_pooler(endpoint: Endpoint) -> UsageError:
    """A transaction pooler gives every transaction another server connection."""
    return UsageError(
        f"port {endpoint.port} of {endpoint.host or 'this host'} is a pooler in transaction mode",
        detail="it forgets session settings and snapshots between transactions; a backup through it would be wrong",
        hint="use the session pooler (on Supabase port 5432 of the same host) or the direct host",
    )
