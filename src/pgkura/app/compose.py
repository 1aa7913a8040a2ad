"""Settings become live objects. Verbs take a Composition and ask it for what they need, when they need it."""

import os
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from pgkura.app.settings import KeySource, Settings, read_reference
from pgkura.core.access import Access, hold
from pgkura.core.errors import UsageError, WrongKey
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.base import Storage
from pgkura.storage.opening import open_storage


class Composition:
    """What the settings allow to be opened. Opens nothing until asked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def storage(self) -> Storage:
        """The repository's store, opened. Raises UsageError, StoreError."""
        return open_storage(
            self.settings.need_repository(), insecure=self.settings.insecure_store, as_of=self.settings.store_as_of
        )

    def other_storage(self, url: str) -> Storage:
        """The store of a second repository. Raises UsageError."""
        return open_storage(url, insecure=self.settings.insecure_store)

    def other_repository(self, url: str) -> Repository:
        """A second repository, with every key at hand. Raises UsageError, RepositoryNotFound."""
        identity, host = self.keys_at_hand()
        return Repository.open(self.other_storage(url), identity=identity, host=host)

    def identity(self) -> Identity:
        """Raises WrongKey where there is none."""
        return Identity.parse(self.settings.identity.read())

    def host_key(self) -> HostKey:
        """Raises WrongKey where there is none."""
        return HostKey.parse(self.settings.host_key.read())

    def keys_at_hand(self) -> tuple[Identity | None, HostKey | None]:
        """Each if there is one."""
        has_identity, has_host = self.settings.identity.exists(), self.settings.host_key.exists()
        return self.identity() if has_identity else None, self.host_key() if has_host else None

    def repository(self, *, need_identity: bool = False, need_host: bool = False) -> Repository:
        """The repository with every key at hand; a needed one that is missing is an error now, not later."""
        has_identity = need_identity or self.settings.identity.exists()
        has_host = need_host or self.settings.host_key.exists()
        if not has_identity and not has_host:
            raise UsageError(
                "no key given",
                detail="a repository opens with the identity or with the host key",
                hint="set PGKURA_IDENTITY or PGKURA_HOST_KEY; `pgkura init` makes both",
            )
        storage = self.storage()
        identity = self.identity() if has_identity else None
        host = self.host_key() if has_host else None
        try:
            return Repository.open(storage, identity=identity, host=host)
        except WrongKey:
            # A key that nobody chose and nothing needs may be that of another repository.
            spare_identity = not (need_identity or self.settings.identity.chosen)
            spare_host = not (need_host or self.settings.host_key.chosen)
            if identity is None or host is None or spare_identity is spare_host:
                raise
            return Repository.open(
                storage, identity=None if spare_identity else identity, host=None if spare_host else host
            )

    def source(self) -> Endpoint:
        """The database to read."""
        return Endpoint.parse(self.settings.need_database(), insecure=self.settings.insecure_database)

    def reading_from(self, standby: str) -> "Composition":
        """The same, but the source is another server: a URL, `env:NAME` or `file:PATH`."""
        url, reference = read_reference(standby)
        return Composition(replace(self.settings, database_url=url, database_reference=reference))

    def target(self) -> Endpoint:
        """The database to write or compare."""
        return self.source()

    def environment(self) -> dict[str, str]:
        """For a command of ours in a process of its own: the same settings, but never the identity."""
        settings = self.settings
        key = settings.host_key
        own = {
            "DATABASE_URL": settings.need_database(),
            "PGKURA_REPOSITORY": settings.need_repository(),
            "PGKURA_HOST_KEY": key.text or str(key.path),
            "PGKURA_INSECURE_STORE": str(settings.insecure_store).lower(),
            "PGKURA_INSECURE_DATABASE": str(settings.insecure_database).lower(),
        }
        return {k: v for k, v in os.environ.items() if k != "PGKURA_IDENTITY"} | own

    def access_for_backup(self) -> Access:
        """What workers need to read the source: references, never credentials, and never the identity."""
        return self._access(host_key=_reference(self.settings.host_key))

    def access_for_reading(self) -> Access:
        """What workers need to read snapshots and speak to a target: references, the identity's too."""
        return self._access(identity=_reference(self.settings.identity))

    def _access(self, *, host_key: str = "", identity: str = "") -> Access:
        settings = self.settings
        url, where = settings.need_database(), settings.need_repository()
        return Access(
            database=settings.database_reference or hold(f"database-{token_hex(6)}", url),
            repository=where if "://" in where else str(Path(where).expanduser().absolute()),
            host_key=host_key,
            identity=identity,
            insecure_database=settings.insecure_database,
            insecure_store=settings.insecure_store,
        )


def _reference(source: KeySource) -> str:
    return source.reference or hold(source.variable, source.text)
