"""A URL becomes a store."""

from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from pgkura.core.errors import UsageError
from pgkura.storage.as_of import AsOfStorage
from pgkura.storage.base import Storage
from pgkura.storage.local import LocalStorage


def open_storage(url: str, *, insecure: bool = False, as_of: datetime | None = None) -> Storage:
    """A path, `file:///path` or `s3://bucket/prefix`. Raises UsageError; nothing is connected to yet.

    `as_of`: a bucket with versions, read only, as it was at that moment.
    """
    storage = _open(url, insecure=insecure)
    return storage if as_of is None else AsOfStorage(storage, as_of)


def _open(url: str, *, insecure: bool) -> Storage:
    if "://" not in url:
        return LocalStorage(Path(url))
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStorage(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        from pgkura.storage.s3 import S3Storage  # a folder needs none of it

        if "@" in parts.netloc:
            raise UsageError(
                "a credential in the repository URL", hint="use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return S3Storage(parts.netloc, parts.path, insecure=insecure)
    raise UsageError(f"cannot use {parts.scheme}:// as a repository", hint="a folder, or s3://bucket/prefix")
