"""What the keys at hand allow in one repository: whom to trust, what opens, who signs. Read from `keys/` once."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pgkura.core.errors import FormatTooNew, PgkuraError, Tampered, Unbelieved, WrongKey
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.container import ROOT, open_signature, signer_of
from pgkura.repository.keyrecords import (
    COPY_HINT,
    EPOCHS,
    HOSTS,
    REVOKED,
    SHARED,
    Revocation,
    Shared,
    epoch_key,
    host_file,
    number_of,
    revoked_key,
)
from pgkura.repository.keys import HostKey, Identity, chunk_mac_key
from pgkura.repository.seal import unpack_record, unseal, unseal_object
from pgkura.repository.trust import Trust, open_trust
from pgkura.storage.base import KeyNotFound, Storage

# Snapshots that an error names, the newest first.
NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch's keys. `secret` opens its data: '' with a host key alone."""

    number: int
    recipient: str
    mac_key: bytes = field(repr=False)
    secret: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Trust and keys of an opened repository.

    signers     host id (or "root") → public key, each signed in by the root; revoked ones too, for their older files
    revoked     host id → what of its files is still believed
    doubtful    hosts of whose files nothing is believed, since their revocation is damaged
    secrets     age secrets that open the index class
    epochs      the epochs that are known here, newest first; new data belongs to the first
    prints      key of component fingerprints, the same in all epochs
    recipients  who can open new records of the index class
    signer      a host id, "root", or '' for a person who cannot sign
    broken      files of `keys/` that could not be used, and why
    unopenable  what is wrong with the file that opens new data, if anything is
    """

    repository_id: str
    created: str
    signers: Mapping[str, Ed25519PublicKey]
    revoked: Mapping[str, Revocation]
    secrets: tuple[str, ...] = field(repr=False)
    epochs: tuple[Epoch, ...]
    prints: bytes = field(repr=False)
    recipients: tuple[str, ...]
    signer: str
    private: Ed25519PrivateKey | None = field(repr=False)
    broken: tuple[tuple[str, str], ...] = ()
    unopenable: PgkuraError | None = None
    doubtful: frozenset[str] = frozenset()

    @property
    def newest(self) -> Epoch:
        """The epoch of new data."""
        return self.epochs[0]

    @property
    def reads_data(self) -> bool:
        """Whether any epoch's data opens."""
        return any(e.secret for e in self.epochs)

    def mac_key(self, number: int) -> bytes:
        """Raises WrongKey for an epoch that is not known here."""
        for epoch in self.epochs:
            if epoch.number == number:
                return epoch.mac_key
        raise WrongKey(f"the keys at hand do not open epoch {number}", detail=self.why_not(number))

    def open_data(self, sealed: bytes, key: str, first: int) -> tuple[bytearray, Epoch]:
        """An opened object, and the epoch whose key its chunks' MACs have. Tries epoch `first` first, then the newest.

        Raises WrongKey, Tampered.
        """
        for epoch in sorted(self.epochs, key=lambda e: e.number != first):
            if epoch.secret:
                with suppress(WrongKey):
                    return unseal_object(sealed, [epoch.secret], key), epoch
        try:
            # Lists for hosts; they go on from what their own epoch left, never from an older one's.
            return unseal_object(sealed, self.secrets, key), self.newest
        except WrongKey as error:
            raise WrongKey(
                error.msg,
                detail="; ".join(f"{name}: {why}" for name, why in self.broken),
                hint="use this repository's identity; a person who was removed does not open later epochs",
            ) from error

    def open_signed(self, kind: str, key: str, data: bytes) -> tuple[str, bytes]:
        """(signer, body) of a file that a host or the root signed.

        Raises Tampered; Unbelieved where the signer's own file is damaged; FormatTooNew.
        """
        try:
            return open_signature(data, kind, self.repository_id, key, self.signers)
        except Tampered as error:
            file = host_file(signer_of(data))
            if (why := dict(self.broken).get(file)) is None:
                raise
            raise Unbelieved(
                f"{key} cannot be believed",
                detail=f"{file}, which says whose signature it has, could not be used: {why}",
                hint=COPY_HINT,
            ) from error

    def refuse_writing(self) -> None:
        """Raises Tampered where it is not sure which epoch is the newest, which hosts must be able to read, or
        whether anybody could open what is written; FormatTooNew."""
        if self.unopenable is not None:
            raise self.unopenable
        for key, why in self.broken:
            if key.startswith(SHARED):
                raise Tampered(why, detail=f"{key} says which key new data is sealed to", hint=COPY_HINT)
            if key.startswith(HOSTS):
                raise Tampered(why, detail=f"{key} says which host can read what is written", hint=COPY_HINT)
            if key.startswith(REVOKED):
                raise Tampered(why, detail=f"{key} says which files of a revoked host are needed", hint=COPY_HINT)

    def why_not(self, number: int) -> str:
        """What was wrong with an epoch's file."""
        return dict(self.broken).get(epoch_key(number), f"there is no {epoch_key(number)}")


def open_keyring(storage: Storage, identity: Identity | None, host: HostKey | None) -> Keyring:
    """Everything that the identity, the host key or both allow.

    Raises RepositoryNotFound, WrongKey (a key of another repository, a revoked host), Tampered, FormatTooNew.
    """
    if identity is None and host is None:
        raise WrongKey("a repository opens with the identity or with the host key", hint="give one of them")
    broken: dict[str, str] = {}
    trust = open_trust(storage, identity, host, broken)
    if host is not None:
        _known_host(trust, host, broken)
    opened = [] if identity is None else read_epochs(storage, trust, identity, broken)
    secrets = [e.secret for e in opened] + ([host.operations] if host is not None else [])
    shared = read_shared(storage, trust, secrets, broken)
    _no_revocation_is_missing(trust, shared)
    epochs = _epochs(opened, host, shared)
    recipients = [epochs[0].recipient]
    if shared:
        recipients.append(Identity.parse(shared[-1].records).recipient)
    is_root = identity is not None and identity.is_root(trust.root_hex)
    # What a host signs whose own file is damaged, nobody would believe.
    signing = host if host is not None and host.host_id in {h.host_id for h in trust.active} else None
    return Keyring(
        repository_id=trust.repository_id,
        created=trust.created,
        signers={ROOT: trust.root} | {h.host_id: h.signing for h in trust.hosts.values()},
        revoked=trust.revoked,
        doubtful=trust.doubtful,
        secrets=(*secrets, *(s.records for s in shared)),
        epochs=epochs,
        prints=shared[-1].prints if shared else epochs[-1].mac_key,
        recipients=(*recipients, *(h.operations for h in trust.active)),
        signer=signing.host_id if signing is not None else ROOT if is_root else "",
        private=signing.signing if signing is not None else identity.root if identity is not None and is_root else None,
        broken=tuple(broken.items()),
        unopenable=None if epochs[0].secret else _unopenable(storage, trust, epoch_key(epochs[0].number)),
    )


def _unopenable(storage: Storage, trust: Trust, key: str) -> PgkuraError | None:
    """Why an epoch's file will open nothing: that much its signature tells without the identity."""
    nobody = "nobody could open what is written"
    try:
        trust.open("epoch", key, storage.get(key))
    except KeyNotFound:
        return Tampered(f"{key} is missing", detail=nobody, hint=COPY_HINT)
    except Tampered as error:
        return Tampered(error.reason, detail=nobody, hint=COPY_HINT)
    except FormatTooNew as error:
        return error
    return None


def _known_host(trust: Trust, host: HostKey, broken: Mapping[str, str]) -> None:
    if host.host_id not in trust.hosts and host_file(host.host_id) not in broken:
        raise WrongKey(
            "this host key is not known to the repository",
            detail=f"there is no {host_file(host.host_id)}",
            hint="the file was deleted from the store; `pgkura hosts add` makes a new host key",
        )
    if host.host_id in trust.revoked:
        raise WrongKey(
            "this host was revoked",
            detail=f"{revoked_key(host.host_id)}, {trust.revoked[host.host_id].created}",
            hint="`pgkura hosts add`, with the root's identity, makes a new host key",
        )


def read_epochs(storage: Storage, trust: Trust, identity: Identity, broken: dict[str, str]) -> list[Epoch]:
    """The epochs that this identity opens, oldest first. One that is damaged costs only its own snapshots.

    Raises WrongKey when the identity opens none, Tampered when none is whole.
    """
    found: list[Epoch] = []
    first: PgkuraError | None = None
    for key in sorted(s.key for s in storage.list(EPOCHS)):
        number = number_of(key, EPOCHS)
        if number is None:
            continue
        try:
            text = unseal(trust.open("epoch", key, storage.get(key)), [identity.secret], key)
            opened = Identity.parse(text.decode("utf-8", "replace"))
        except (Tampered, WrongKey, KeyNotFound) as error:
            broken[key] = error.reason
            first = error if first is None or isinstance(error, Tampered) else first
        else:
            mac = chunk_mac_key(opened.secret)
            found.append(Epoch(number=number, recipient=opened.recipient, mac_key=mac, secret=opened.secret))
    if not found and isinstance(first, WrongKey):
        raise WrongKey(
            "this identity is not among the people of this repository",
            detail=f"it opens none of {EPOCHS}*",
            hint="the root adds a person with `pgkura people add NAME age1…`",
        ) from first
    if not found:
        raise _no_epoch(storage, first) from first
    return found


def _no_epoch(storage: Storage, first: PgkuraError | None) -> Tampered:
    """All that is stored is touched, and named: that much shows without a key."""
    lost = sorted((s.key.removeprefix(SNAPSHOTS) for s in storage.list(SNAPSHOTS)), reverse=True)
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    needing = "without it no data can be opened" + (f"; needed by {', '.join(lost[:NAMED])}{more}" if lost else "")
    if first is None:
        return Tampered(f"{epoch_key(1)} is missing", detail=needing, hint=COPY_HINT)
    return Tampered(first.msg, detail=f"{first.detail}; {needing}" if first.detail else needing, hint=COPY_HINT)


def read_shared(storage: Storage, trust: Trust, secrets: list[str], broken: dict[str, str]) -> list[Shared]:
    """The generations that these secrets open, oldest first.

    Reading data needs none of them. Who writes must not fall back to an older one: see `Keyring.refuse_writing`.
    """
    found: list[Shared] = []
    keys = sorted(s.key for s in storage.list(SHARED) if number_of(s.key, SHARED) is not None)
    for key in keys:
        try:
            body = trust.open("shared", key, storage.get(key))
            found.append(Shared.decode(unpack_record(body, secrets, key), key))
        except WrongKey as error:
            if key == keys[-1]:
                broken[key] = error.msg  # older ones: of an epoch that this person does not open
        except Tampered as error:
            broken[key] = error.reason
    return found


def _no_revocation_is_missing(trust: Trust, shared: list[Shared]) -> None:
    for host_id in shared[-1].revoked if shared else ():
        if host_id not in trust.revoked and host_id not in trust.doubtful:
            raise Tampered(
                f"{revoked_key(host_id)} is missing",
                detail="a host was revoked, and somebody took its revocation away",
                hint="get it back from a copy of the repository; give the store's credentials no right to delete",
            )


def _epochs(opened: list[Epoch], host: HostKey | None, shared: list[Shared]) -> tuple[Epoch, ...]:
    """All known epochs; first the one of new data: the newest generation's, else the newest there is."""
    known = {s.epoch: Epoch(number=s.epoch, recipient=s.recipient, mac_key=s.mac) for s in shared}
    if host is not None:
        mac = bytes.fromhex(host.mac_key)
        known.setdefault(host.epoch, Epoch(number=host.epoch, recipient=host.recipient, mac_key=mac))
    newest = max(known, default=0)
    known |= {e.number: e for e in opened}
    first = newest or max(known)
    return tuple(known[n] for n in sorted(known, key=lambda n: (n != first, -n)))
