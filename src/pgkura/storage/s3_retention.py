"""Object Lock and versions of an S3 bucket through boto3, which obstore has no calls for. An extra: `pgkura[s3]`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pgkura.core.errors import StoreError, UsageError
from pgkura.storage.base import KeyNotFound
from pgkura.storage.keys import check_key
from pgkura.storage.retention import Keeping, LockMode, Version

Failure = Callable[[str, str, Exception], StoreError]
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
_UNLOCKED = frozenset({"ObjectLockConfigurationNotFoundError"})


class S3Retention:
    """Keeps the Retention contract below `s3://bucket/prefix`."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str, failure: Failure) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise UsageError(
                "locks and versions of S3 need the library boto3", hint="pip install 'pgkura[s3]'"
            ) from error
        self._errors: tuple[type[Exception], ...] = (BotoCoreError, ClientError)
        self._refused: type[Exception] = ClientError
        self._bucket = bucket
        self._home = f"{prefix}/" if prefix else ""
        self._url = f"s3://{bucket}" + (f"/{prefix}" if prefix else "")
        self._failure = failure
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            config=Config(
                connect_timeout=10,
                read_timeout=60,
                retries={"max_attempts": 4, "mode": "standard"},
                max_pool_connections=16,
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def keeping(self) -> Keeping:
        """Two questions to the bucket."""
        try:
            with self._translated("the bucket"):
                found = self._ask_lock()
                if found is not None:
                    return found
                answer = self._client.get_bucket_versioning(Bucket=self._bucket)
        except StoreError:
            return Keeping.UNKNOWN
        return Keeping.VERSIONS if answer.get("Status") == "Enabled" else Keeping.NOTHING

    def _ask_lock(self) -> Keeping | None:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except self._refused as error:
            if _code(error) in _UNLOCKED:
                return None
            raise
        enabled = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
        return Keeping.LOCKS if enabled else None

    def lock(self, key: str, *, until: datetime, mode: LockMode, size: int | None = None, version: str = "") -> bool:
        """One look, and one change where it is needed."""
        head = self._head(key, size, version)
        end, had = head.get("ObjectLockRetainUntilDate"), head.get("ObjectLockMode")
        wanted = LockMode.COMPLIANCE if LockMode.COMPLIANCE in (mode, had) else mode
        if end is not None and had == wanted and end >= until:
            return False
        with self._translated(key):
            self._client.put_object_retention(
                Bucket=self._bucket,
                Key=self._home + key,
                VersionId=head["VersionId"],
                Retention={"Mode": str(wanted), "RetainUntilDate": max(until, end) if end is not None else until},
            )
        return True

    def locked_until(self, key: str, *, size: int | None = None, version: str = "") -> datetime | None:
        """By one look."""
        found: datetime | None = self._head(key, size, version).get("ObjectLockRetainUntilDate")
        return found

    def _head(self, key: str, size: int | None, version: str) -> dict[str, Any]:
        """This version, else the current one; the newest of the right size where somebody overwrote or hid that."""
        if version:
            return self._head_of(key, VersionId=version)
        try:
            head = self._head_of(key)
            if size is None or head["ContentLength"] == size:
                return head
        except KeyNotFound:
            if size is None:
                raise
        for older in self.history(key):
            if older.key == key and not older.deleted and older.size == size:
                return self._head_of(key, VersionId=older.id)
        raise KeyNotFound(f"{key} does not exist in {self._url} in the right size")

    def _head_of(self, key: str, **which: str) -> dict[str, Any]:
        with self._translated(check_key(key)):
            found: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=self._home + key, **which)
            return found

    def history(self, prefix: str) -> Iterator[Version]:
        """Pages of a thousand."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._home + prefix}
        while True:
            with self._translated(prefix or "all versions"):
                page = self._client.list_object_versions(**where)
            said = [(v, False) for v in page.get("Versions", ())] + [(v, True) for v in page.get("DeleteMarkers", ())]
            # Times are whole seconds: of one second only the current version is known to be the newest.
            said.sort(key=lambda s: (s[0]["Key"], -s[0]["LastModified"].timestamp(), not s[0].get("IsLatest")))
            yield from (self._version(v, deleted=deleted) for v, deleted in said)
            if not page.get("IsTruncated"):
                return
            where |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}

    def _version(self, said: dict[str, Any], *, deleted: bool) -> Version:
        return Version(
            key=str(said["Key"]).removeprefix(self._home),
            id=str(said["VersionId"]),
            size=int(said.get("Size", 0)),
            modified=said["LastModified"],
            deleted=deleted,
        )

    def get_version(self, key: str, version_id: str) -> bytes:
        """The bytes of one version."""
        with self._translated(check_key(key)):
            body = self._client.get_object(Bucket=self._bucket, Key=self._home + key, VersionId=version_id)["Body"]
            with body:
                data: bytes = body.read()
                return data

    def delete_version(self, key: str, version_id: str) -> None:
        """For good."""
        with self._translated(check_key(key)):
            self._client.delete_object(Bucket=self._bucket, Key=self._home + key, VersionId=version_id)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            if _code(error) in _MISSING:
                raise KeyNotFound(f"{key} does not exist in {self._url}") from error
            raise self._failure(self._url, key, error) from error


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
