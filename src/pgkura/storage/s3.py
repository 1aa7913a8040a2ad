"""An S3 bucket (or anything that speaks S3) as a store, through obstore. Settings: the standard AWS variables."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore import exceptions as vendor
from obstore.store import S3Store

from pgkura.core.errors import StoreError, UsageError
from pgkura.storage.base import KeyExists, KeyNotFound, Properties, Stored
from pgkura.storage.keys import check_key
from pgkura.storage.retention import Retention
from pgkura.storage.s3_retention import S3Retention

if TYPE_CHECKING:
    from obstore.store import S3Config

CLASSES = frozenset(
    {
        "STANDARD",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
        "REDUCED_REDUNDANCY",
    }
)
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class S3Storage:
    """Keeps the Storage contract below `s3://bucket/prefix`."""

    def __init__(self, bucket: str, prefix: str, *, insecure: bool = False) -> None:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        parts = urlsplit(endpoint)
        self._local = parts.hostname in _LOCAL_HOSTS
        plain = parts.scheme == "http"
        if plain and not self._local and not insecure:
            raise UsageError(
                f"the store {parts.hostname} would be spoken to without TLS",
                detail="AWS_ENDPOINT_URL begins with http://",
                hint="use https://, or waive it with --insecure-store",
            )
        self._bucket = bucket
        self._endpoint = endpoint
        self._retention: S3Retention | None = None
        self._prefix = prefix.strip("/")
        # Buckets that lock what is put into them take no upload without a checksum.
        config: S3Config = {"checksum_algorithm": "SHA256"}
        if endpoint:
            config["endpoint"] = endpoint
        self._store = S3Store(
            bucket,
            prefix=self._prefix or None,
            client_options={
                "allow_http": plain,
                "timeout": timedelta(seconds=120),
                "connect_timeout": timedelta(seconds=10),
            },
            config=config,
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=25)},
        )
        self._properties: Properties | None = None
        self._lock = Lock()

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")

    def properties(self) -> Properties:
        """Conditional create is probed by trying it twice on a file of its own."""
        with self._lock:
            if self._properties is None:
                self._properties = Properties(
                    conditional_create=self._probe(), storage_classes=CLASSES, local=self._local
                )
            return self._properties

    def _probe(self) -> bool:
        key = f"probe/{secrets.token_hex(8)}"
        with self._translated(key):
            try:
                obstore.put(self._store, key, b"1", mode="create", use_multipart=False)
                obstore.put(self._store, key, b"2", mode="create", use_multipart=False)
            except vendor.AlreadyExistsError:
                return True
            except (vendor.NotSupportedError, vendor.PreconditionError):
                return False
            finally:
                # A credential that may not delete leaves it to the bucket's lifecycle rules.
                with suppress(vendor.BaseError, OSError):
                    obstore.delete(self._store, key)
        return False

    def retention(self) -> Retention:
        """Locks and versions. Raises UsageError without boto3."""
        with self._lock:
            if self._retention is None:
                self._retention = S3Retention(self._bucket, self._prefix, endpoint=self._endpoint, failure=_failure)
            return self._retention

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store or replace; S3 shows an object whole or not at all."""
        with self._translated(check_key(key)):
            obstore.put(self._store, key, data, attributes=_attributes(storage_class))

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store, or raise KeyExists; atomic where the store honours conditional writes."""
        if not self.properties().conditional_create:
            if next(iter(self.list(check_key(key))), None) is not None and self._exists(key):
                raise KeyExists(f"{key} exists in {self.url}")
            self.put(key, data, storage_class=storage_class)
            return
        with self._translated(check_key(key)):
            try:
                obstore.put(
                    self._store,
                    key,
                    data,
                    mode="create",
                    use_multipart=False,
                    attributes=_attributes(storage_class),
                )
            except vendor.AlreadyExistsError:
                raise KeyExists(f"{key} exists in {self.url}") from None

    def _exists(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """Raises KeyNotFound."""
        with self._translated(check_key(key)):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError:
                raise KeyNotFound(f"{key} does not exist in {self.url}") from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Of a server that knows no ranges, out of the whole. Raises KeyNotFound."""
        with suppress(vendor.BaseError, OSError):
            return bytes(obstore.get_range(self._store, check_key(key), start=start, length=length))
        return self.get(key)[start : start + length]

    def list(self, prefix: str) -> Iterator[Stored]:
        """All keys beginning with `prefix`."""
        # Object stores list by whole segments here; the rest of the prefix is filtered on our side.
        folder = prefix.rpartition("/")[0]
        with self._translated(prefix or "all keys"):
            for batch in obstore.list(self._store, prefix=folder or None):
                for meta in batch:
                    if meta["path"].startswith(prefix):
                        yield Stored(key=meta["path"], size=meta["size"], modified=meta["last_modified"].timestamp())

    def delete(self, key: str) -> None:
        """Idempotent."""
        with self._translated(check_key(key)):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (vendor.BaseError, OSError) as error:
            raise _failure(self.url, key, error) from error


def _attributes(storage_class: str) -> dict[str, str] | None:
    if not storage_class:
        return None
    if storage_class not in CLASSES:
        raise UsageError(f"unknown storage class {storage_class!r}", hint=f"one of: {', '.join(sorted(CLASSES))}")
    return {"Storage-Class": storage_class}


# Patterns: a number by itself stands in durations and in names, too.
_REASONS: tuple[tuple[str, str, str], ...] = (
    ("nosuchbucket", "the bucket does not exist", "make the bucket, or check its name and AWS_REGION"),
    ("signaturedoesnotmatch", "the secret key is wrong", "check AWS_SECRET_ACCESS_KEY"),
    ("invalidaccesskeyid", "the access key is unknown", "check AWS_ACCESS_KEY_ID"),
    ("accessdenied", "the credentials may not do this", "check the bucket policy for these credentials"),
    (
        r"status(?: code)?: 403\b",
        "the credentials may not do this",
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket policy",
    ),
    (
        r"status(?: code)?: 401\b",
        "the store does not accept these credentials",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    ("missing region", "no region is set", "set AWS_REGION"),
    (r"169\.254\.169\.254", "no credentials are set", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("connect", "the store cannot be reached", "check AWS_ENDPOINT_URL and the network"),
    ("dns error", "the store's host name is unknown", "check AWS_ENDPOINT_URL"),
    ("timed out", "the store does not answer", "check AWS_ENDPOINT_URL and the network; run it again"),
    ("insufficientstorage", "the store is full", "make room; nothing was half-written"),
)


def _failure(url: str, key: str, error: Exception) -> StoreError:
    said = " ".join(str(error).split())
    for mark, why, hint in _REASONS:
        if re.search(mark, said.lower()):
            return StoreError(f"cannot use {key} in {url}", detail=why, hint=hint)
    return StoreError(f"cannot use {key} in {url}", detail=said[:300], hint="run it again; nothing was half-written")
