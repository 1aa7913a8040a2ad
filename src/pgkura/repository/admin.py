"""What only the root does: let people and hosts in, shut them out, begin a new epoch.

Each change is a few small files in `keys/`, written in an order in which a crash leaves something that the same
command, run again, completes; nobody is let in who is not listed, nobody is listed as out who still gets in.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgkura.core.errors import Tampered, UsageError, WrongKey
from pgkura.repository.belief import hosts_of
from pgkura.repository.container import ROOT, open_signature, seal_signature
from pgkura.repository.keyrecords import (
    EPOCHS,
    PEOPLE_KEY,
    HostRecord,
    Person,
    Revocation,
    Shared,
    decode_people,
    encode_people,
    encode_superseded,
    epoch_key,
    host_file,
    number_of,
    revoked_key,
    shared_key,
    superseded_key,
)
from pgkura.repository.keyring import Epoch, read_epochs, read_shared
from pgkura.repository.keys import HostKey, Identity, chunk_mac_key, new_host_key, new_identity
from pgkura.repository.scripts import write_scripts
from pgkura.repository.seal import pack_record, seal, unpack_record, unseal
from pgkura.repository.trust import Trust, open_trust
from pgkura.storage.base import KeyNotFound, Storage

# Nothing that a host signs lies here.
_NOT_SIGNED_BY_HOSTS = ("data/", "keys/", "probe/")


def read_people(storage: Storage, trust: Trust, identity: Identity) -> tuple[Person, ...]:
    """Who reads besides the root. Raises WrongKey for an identity that is none of them, Tampered."""
    try:
        data = storage.get(PEOPLE_KEY)
    except KeyNotFound:
        return ()
    return decode_people(unpack_record(trust.open("people", PEOPLE_KEY, data), [identity.secret], PEOPLE_KEY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A repository opened by its root, to change who may do what."""

    storage: Storage
    identity: Identity
    trust: Trust

    @classmethod
    def open(cls, storage: Storage, identity: Identity) -> "Root":
        """Raises WrongKey for any other identity than the root's."""
        trust = open_trust(storage, identity, None)
        if not identity.is_root(trust.root_hex):
            raise WrongKey(
                "only the root changes who may do what",
                detail="this identity is a person's; keys are signed by the identity that `pgkura init` wrote",
                hint="set PGKURA_IDENTITY to the root's identity file",
            )
        return cls(storage=storage, identity=identity, trust=trust)

    def refresh_scripts(self) -> tuple[str, ...]:
        """RESTORE.md and restore.sh as this program ships them; the names of those that were different."""
        return write_scripts(self.storage, self.trust.repository_id, self.identity.root)

    # --- people

    def people(self) -> tuple[Person, ...]:
        """Who reads besides the root."""
        return read_people(self.storage, self.trust, self.identity)

    def add_person(self, name: str, recipient: str) -> tuple[Person, int]:
        """Seal every epoch to one more person; how many they are. The same again completes what was cut short."""
        people = self.people()
        same = [p for p in people if (p.name, p.recipient) == (name, recipient)]
        taken = [p for p in people if p not in same and (p.name == name or p.recipient == recipient)]
        if taken or recipient == self.identity.recipient:
            who = taken[0].name if taken else "the root"
            raise UsageError(
                f"{who} is among the people already",
                detail="a name and a recipient belong to one person each",
                hint="`pgkura people list` shows them; `pgkura people remove` first, or choose another name",
            )
        person = same[0] if same else Person(name=name, recipient=recipient, added=_now(), by=ROOT)
        texts = self._epoch_texts()
        everyone = (*(p for p in people if p != person), person)
        self._supersede((PEOPLE_KEY, *texts))
        self._put_people(everyone)
        self._seal_epochs(texts, everyone)
        return person, len(texts)

    def remove_person(self, name: str) -> tuple[Person, int]:
        """Seal every epoch to the others only; how many they are. Raises UsageError for an unknown name."""
        people = self.people()
        person = next((p for p in people if p.name == name), None)
        if person is None:
            raise UsageError(f"nobody of the name {name!r}", hint="`pgkura people list` shows the names")
        others = tuple(p for p in people if p != person)
        texts = self._epoch_texts()
        self._supersede((PEOPLE_KEY, *texts))
        self._seal_epochs(texts, others)
        self._put_people(others)
        return person, len(texts)

    def _epoch_texts(self) -> dict[str, bytes]:
        """Key → what it seals; all or an error: nobody shall be let into a part without being told."""
        found: dict[str, bytes] = {}
        for key in sorted(s.key for s in self.storage.list(EPOCHS)):
            if number_of(key, EPOCHS) is not None:
                body = self.trust.open("epoch", key, self.storage.get(key))
                found[key] = unseal(body, [self.identity.secret], key)
        return found

    def _seal_epochs(self, texts: Mapping[str, bytes], people: Sequence[Person]) -> None:
        for key, text in texts.items():
            self.storage.put(key, self._signed("epoch", key, seal(text, self._readers(people))))

    def _put_people(self, people: tuple[Person, ...]) -> None:
        body = pack_record(encode_people(people), self._readers(people))
        self.storage.put(PEOPLE_KEY, self._signed("people", PEOPLE_KEY, body))

    def _readers(self, people: Sequence[Person]) -> list[str]:
        return [self.identity.recipient, *(p.recipient for p in people)]

    # --- hosts

    def host(self, which: str) -> HostRecord:
        """By id, by the beginning of an id, or by name. Raises UsageError when it is none or several."""
        hosts = list(self.trust.hosts.values())
        found = [h for h in hosts if which in (h.host_id, h.name)] or [
            h for h in hosts if which and h.host_id.startswith(which)
        ]
        if len(found) != 1:
            raise UsageError(
                f"{'no' if not found else 'more than one'} host {which!r}", hint="`pgkura hosts list` shows their ids"
            )
        return found[0]

    def add_host(self, name: str, keep: Callable[[HostKey], None]) -> HostKey:
        """A new host. `keep` writes its key file before the repository knows of it."""
        generations = self._generations()
        newest = self._newest(generations)
        key = new_host_key(
            self.trust.repository_id,
            self.trust.root_hex,
            epoch=newest.epoch,
            recipient=newest.recipient,
            mac_key=newest.mac,
        )
        keep(key)
        record = HostRecord.of(key, name=name, created=_now())
        # First what it will need to read, then the host: a known host can always open the newest generation.
        self._supersede(shared_key(g.generation) for g in generations)
        for shared in generations or [newest]:
            body = pack_record(shared.encode(), [*self._shared_readers(shared, newest), record.operations])
            file = shared_key(shared.generation)
            self.storage.put(file, self._signed("shared", file, body))
        file = host_file(record.host_id)
        self.storage.create(file, self._signed("host", file, record.encode()))
        return key

    def revoke(self, which: str, *, since: datetime | None = None) -> Revocation:
        """Believe nothing more of a host than the files that are here now (and are older than `since`)."""
        host = self.host(which)
        generations = self._generations()
        revocation = self.trust.revoked.get(host.host_id)
        if revocation is None:
            good = self._files_of(host, since)
            revocation = Revocation(host_id=host.host_id, created=_now(), good=good)
            file = revoked_key(host.host_id)
            self.storage.create(file, self._signed("revoked", file, revocation.encode()))
        out = {*self.trust.revoked, host.host_id}
        newest = self._newest(generations)
        if not generations or set(newest.revoked) != out:
            # A new key for records: the one he knows opens nothing that is written from now on.
            following = newest.generation + 1 if generations else newest.generation
            self._put_generation(
                replace(newest, generation=following, records=new_identity().secret, revoked=tuple(sorted(out)))
            )
        return revocation

    def _files_of(self, host: HostRecord, since: datetime | None) -> dict[str, str]:
        good: dict[str, str] = {}
        # Of a bundle another host may be the signer: it passes on what this one wrote.
        signers = {ROOT: self.trust.root} | {h.host_id: h.signing for h in self.trust.hosts.values()}
        for stored in self.storage.list(""):
            if stored.key.startswith(_NOT_SIGNED_BY_HOSTS) or (since and stored.modified >= since.timestamp()):
                continue
            data = self.storage.get(stored.key)
            if host.host_id not in hosts_of(data):
                continue
            kind = data[:64].split(b" ")[1].decode("ascii", "replace")
            try:
                open_signature(data, kind, self.trust.repository_id, stored.key, signers)
            except Tampered:
                continue
            good[stored.key] = hashlib.sha256(data).hexdigest()
        return good

    # --- epochs

    def new_epoch(self) -> Epoch:
        """New data is sealed to a new key from now on; an interrupted beginning is completed."""
        self.refresh_scripts()  # an older script may know of one epoch only
        generations = self._generations()
        newest = self._newest(generations)
        last = max(self._epochs(), key=lambda e: e.number)
        if last.number > newest.epoch:
            epoch = last
        else:
            epoch = self._make_epoch(last.number + 1)
        following = newest.generation + 1 if generations else newest.generation
        self._put_generation(
            replace(
                newest,
                generation=following,
                epoch=epoch.number,
                recipient=epoch.recipient,
                mac=epoch.mac_key,
                records=new_identity().secret,
                revoked=tuple(sorted(self.trust.revoked)),
            )
        )
        return epoch

    def _make_epoch(self, number: int) -> Epoch:
        fresh = new_identity()
        file = epoch_key(number)
        text = f"# pgkura epoch {number} of repository {self.trust.repository_id}\n{fresh.secret}\n".encode()
        self.storage.create(file, self._signed("epoch", file, seal(text, self._readers(self.people()))))
        mac = chunk_mac_key(fresh.secret)
        return Epoch(number=number, recipient=fresh.recipient, mac_key=mac, secret=fresh.secret)

    # --- shared

    def _epochs(self) -> list[Epoch]:
        broken: dict[str, str] = {}
        epochs = read_epochs(self.storage, self.trust, self.identity, broken)
        for key, reason in broken.items():
            raise Tampered(reason, detail=key, hint="get it back from a copy of the repository first")
        return epochs

    def _generations(self) -> list[Shared]:
        secrets = [e.secret for e in self._epochs()]
        broken: dict[str, str] = {}
        found = read_shared(self.storage, self.trust, secrets, broken)
        for key, reason in broken.items():
            raise Tampered(reason, detail=key, hint="get it back from a copy of the repository first")
        return found

    def _newest(self, generations: Sequence[Shared]) -> Shared:
        """The newest generation, or what a repository of before generations had."""
        if generations:
            return generations[-1]
        first = min(self._epochs(), key=lambda e: e.number)
        return Shared(
            generation=1,
            epoch=first.number,
            recipient=first.recipient,
            mac=first.mac_key,
            prints=first.mac_key,
            records=new_identity().secret,
            revoked=(),
        )

    def _put_generation(self, shared: Shared) -> None:
        file = shared_key(shared.generation)
        out = set(shared.revoked)
        hosts = [h.operations for h in self.trust.hosts.values() if h.host_id not in out]
        body = pack_record(shared.encode(), [shared.recipient, *hosts])
        self.storage.create(file, self._signed("shared", file, body))

    def _shared_readers(self, shared: Shared, newest: Shared) -> list[str]:
        hosts = [h.operations for h in self.trust.active]
        return list(dict.fromkeys([shared.recipient, newest.recipient, *hosts]))

    def _supersede(self, keys: Iterable[str]) -> None:
        """Say that what lies there is replaced, before it is: a copy of before shall never be put over what follows."""
        files: dict[str, str] = {}
        for key in keys:
            with suppress(KeyNotFound):
                files[key] = hashlib.sha256(self.storage.get(key)).hexdigest()
        if files:
            file = superseded_key(secrets.token_hex(8))
            self.storage.create(file, self._signed("superseded", file, encode_superseded(files)))

    def _signed(self, kind: str, key: str, body: bytes) -> bytes:
        return seal_signature(kind, self.trust.repository_id, key, body, signer=ROOT, private=self.identity.root)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
