"""Options that many verbs share, declared once."""

from typing import Annotated

import typer

from pgkura.core.errors import UsageError

Repository = Annotated[
    str, typer.Option("--repository", "-r", help="Folder or s3://bucket/prefix [env: PGKURA_REPOSITORY]")
]
Identity = Annotated[
    str,
    typer.Option("--identity", help="Path of the identity file (never a key: it would show) [env: PGKURA_IDENTITY]"),
]
HostKey = Annotated[str, typer.Option("--host-key", help="Path of the host key file [env: PGKURA_HOST_KEY]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept", help="Waive one `denied` object by its exact name, for this run; shown in every result. Repeatable."
    ),
]
InsecureStore = Annotated[
    bool, typer.Option("--insecure-store", help="Allow a remote store without TLS [env: PGKURA_INSECURE_STORE]")
]
InsecureDatabase = Annotated[
    bool,
    typer.Option("--insecure-database", help="Allow a remote database without TLS [env: PGKURA_INSECURE_DATABASE]"),
]
Workers = Annotated[int, typer.Option("--workers", "-j", min=1, max=32, help="Connections that move rows at once.")]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        help="Who moves the rows: auto, threads, processes or dask://host:8786 "
        "[TLS: PGKURA_DASK_CA, PGKURA_DASK_CERT, PGKURA_DASK_KEY]",
    ),
]
SnapshotId = Annotated[str, typer.Argument(help="Snapshot id, a unique beginning of one, or `latest`.")]


def not_blank(option: str, value: str | None) -> str:
    """What was given, '' for nothing. Raises UsageError for a blank: an unset variable never means another URL."""
    if value is not None and not value.strip():
        raise UsageError(
            f"{option} is given and blank",
            detail="a variable that is not set is the usual reason; nothing else is taken in its place",
            hint=f"leave {option} out, or give it a value",
        )
    return value or ""
