"""The key files: identity (read everything), host key (make backups), and what is derived from them.

Derivations are HKDF-SHA256 without salt; the input is the age secret line as ASCII text (it is the key itself
in another alphabet), the info strings are given in docs/formats/repository.md, "Keys".
"""

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pgkura.core.errors import FormatTooNew, WrongKey

_SECRET = "AGE-SECRET-KEY-1"  # noqa: S105 - the public prefix of every age identity
_HOST_HEADER = "pgkura-host-key"
_COMMENT = re.compile(r"^#\s*(repository|root):\s*([0-9a-f]+)\s*$", re.MULTILINE)


def derive(secret_line: str, info: str) -> bytes:
    """32 bytes bound to `info`."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info.encode()).derive(secret_line.encode("ascii"))


def root_key(secret_line: str) -> Ed25519PrivateKey:
    """The root signing key of an identity."""
    return Ed25519PrivateKey.from_private_bytes(derive(secret_line, "pgkura/v1/root"))


def chunk_mac_key(epoch_secret: str) -> bytes:
    """The key of chunk MACs: whoever opens the epoch can compute it; hosts are given a copy."""
    return derive(epoch_secret, "pgkura/v1/chunk-mac")


def public_hex(key: Ed25519PublicKey) -> str:
    """64 hex digits."""
    return key.public_bytes_raw().hex()


def public_from_hex(text: str) -> Ed25519PublicKey:
    """Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))


@dataclass(frozen=True, slots=True)
class Identity:
    """A person's key: the root's own, or that of somebody the root let in. Never logged: `repr` shows no secret.

    repository, root_hex  what the file's comment lines `# repository:` and `# root:` say, '' where there are none
    """

    secret: str = field(repr=False)
    recipient: str
    repository: str = ""
    root_hex: str = ""

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """From an identity file's text or the bare secret line. Raises WrongKey."""
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith(_SECRET)]
        if len(lines) != 1:
            raise WrongKey(
                "this is not an identity",
                detail=f"expected one line beginning with {_SECRET}, found {len(lines)}",
                hint="use the identity file that `pgkura init` wrote",
            )
        try:
            opened = pyrage.x25519.Identity.from_str(lines[0])
        except pyrage.IdentityError as error:
            raise WrongKey("the identity is damaged", detail="it is not a valid age secret key") from error
        said = {str(m[1]): str(m[2]) for m in _COMMENT.finditer(text)}
        return cls(lines[0], str(opened.to_public()), said.get("repository", ""), said.get("root", ""))

    @property
    def root(self) -> Ed25519PrivateKey:
        """The root signing key that this identity would have."""
        return root_key(self.secret)

    def is_root(self, root_hex: str) -> bool:
        """Whether this is the identity that a repository's root key was derived from."""
        return public_hex(self.root.public_key()) == root_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """What the backup machine holds: it signs and seals, and opens the index class only."""

    repository_id: str
    root_public: str
    host_id: str
    signing_seed: str = field(repr=False)
    operations: str = field(repr=False)
    epoch: int
    recipient: str
    mac_key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "HostKey":
        """Raises WrongKey naming the line that is wrong."""
        words = dict(line.split(" ", 1) for line in text.split("\n") if " " in line and not line.startswith("#"))
        version = words.get(_HOST_HEADER, "")
        if version.isdecimal() and int(version) > 1:
            raise FormatTooNew(f"the host key file has format {version}", hint="use a newer pgkura")
        if version != "1":
            raise WrongKey("this is not a host key", hint="use the host key file that `pgkura init` wrote")
        try:
            made = cls(
                repository_id=words["repository"],
                root_public=words["root"],
                host_id=words["host"],
                signing_seed=words["signing"],
                operations=words["operations"],
                epoch=int(words["epoch"]),
                recipient=words["recipient"],
                mac_key=words["mac"],
            )
            made.check()
        except KeyError as error:
            raise WrongKey("the host key is incomplete", detail=f"no line {error.args[0]!r}") from error
        except (ValueError, pyrage.IdentityError, pyrage.RecipientError) as error:
            raise WrongKey("the host key is damaged", detail=type(error).__name__) from error
        return made

    def check(self) -> None:
        """Raises ValueError or pyrage errors when a part is malformed."""
        public_from_hex(self.root_public)
        _ = self.signing
        pyrage.x25519.Identity.from_str(self.operations)
        pyrage.x25519.Recipient.from_str(self.recipient)
        if len(bytes.fromhex(self.mac_key)) != 32 or not self.host_id.isalnum():
            raise ValueError("length")

    def text(self) -> str:
        """The file's text."""
        return (
            "# pgkura host key: makes backups, reads none of their rows; stays on the backup machine, mode 0600\n"
            f"{_HOST_HEADER} 1\nrepository {self.repository_id}\nroot {self.root_public}\nhost {self.host_id}\n"
            f"signing {self.signing_seed}\noperations {self.operations}\nepoch {self.epoch}\n"
            f"recipient {self.recipient}\nmac {self.mac_key}\n"
        )

    @property
    def signing(self) -> Ed25519PrivateKey:
        """The host's signing key."""
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.signing_seed))

    @property
    def operations_recipient(self) -> str:
        """The public half of the operations key."""
        return str(pyrage.x25519.Identity.from_str(self.operations).to_public())


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeys:
    """Everything a new repository begins with."""

    repository_id: str
    created: str
    identity: Identity
    epoch_secret: str = field(repr=False)
    host: HostKey

    @property
    def identity_text(self) -> str:
        """The identity file: a valid `age -i` file."""
        return (
            "# pgkura identity: reads every backup of this repository. Keep it away from the backup machine.\n"
            f"# repository: {self.repository_id}\n# created: {self.created}\n"
            f"# public key: {self.identity.recipient}\n# root: {public_hex(self.identity.root.public_key())}\n"
            f"{self.identity.secret}\n"
        )

    @property
    def host_key_text(self) -> str:
        """The host key file."""
        return self.host.text()


def new_identity() -> Identity:
    """A fresh age identity."""
    return Identity.parse(str(pyrage.x25519.Identity.generate()))


def valid_recipient(text: str) -> bool:
    """Whether this is an age X25519 recipient (`age1…`)."""
    try:
        pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        return False
    return True


def new_host_key(repository_id: str, root_public: str, *, epoch: int, recipient: str, mac_key: bytes) -> HostKey:
    """A fresh host of a repository, beginning with this epoch."""
    return HostKey(
        repository_id=repository_id,
        root_public=root_public,
        host_id=secrets.token_hex(6),
        signing_seed=secrets.token_bytes(32).hex(),
        operations=new_identity().secret,
        epoch=epoch,
        recipient=recipient,
        mac_key=mac_key.hex(),
    )


def new_keys(*, now: datetime) -> NewKeys:
    """Fresh random keys for a new repository."""
    identity, epoch = new_identity(), new_identity()
    repository_id = secrets.token_hex(16)
    root = public_hex(identity.root.public_key())
    return NewKeys(
        repository_id=repository_id,
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        identity=identity,
        epoch_secret=epoch.secret,
        host=new_host_key(repository_id, root, epoch=1, recipient=epoch.recipient, mac_key=chunk_mac_key(epoch.secret)),
    )
