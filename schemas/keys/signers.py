"""Signers of the code that processors run: Ed25519 signatures (RFC 8032), and the file of trusted public keys.

A trusted key is a line in OpenSSH's format of public keys, `ssh-ed25519 BASE64 NAME`. A private key is PKCS #8 in PEM,
the format of `openssl genpkey -algorithm ed25519`. A signature holds for one purpose only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)

from schemas.errors import BadTagError, ConfigError, SecretError

MAX_TRUST_BYTES: Final = 2**20
"""Size limit of a file of trusted keys."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class SignaturePurpose(Enum):
    """The purpose of a signature."""

    BUNDLE = b"pointillist v1 bundle\0"
    MODELS = b"pointillist v1 models\0"
    ASSESSMENT = b"pointillist v1 assessment\0"


class Signer:
    """A private key. It appears in no log, error or message."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """The public key, 32 bytes."""

    def __repr__(self) -> str:
        return f"Signer({fingerprint(self.public)})"

    @classmethod
    def new(cls) -> Self:
        """Generate a key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the key in `file`. Raises SecretError, which never shows the content."""
        try:
            key = load_pem_private_key(file.read_bytes(), password=None)
        except OSError as error:
            raise SecretError(
                f"signer: expected a readable private key, got {file}: {error.strerror}. Correct the path."
            ) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise SecretError(
                f"{file}: expected a signer's private key, Ed25519 in PEM without a passphrase, got another file. "
                "Run `pointillist signer init`."
            )
        return cls(key)

    def export(self) -> str:
        """Return the private key in the format of its file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def line(self, name: str) -> str:
        """Return the line that names this signer in a file of trusted keys. Raises ConfigError for an invalid name."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"a signer's name: expected 1 to 64 letters, digits or ._@-, got {name!r}. Correct it.")
        line = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return f"{line.decode()} {name}"

    def sign(self, what: SignaturePurpose, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(what.value + message)


class TrustedSigners:
    """Public keys and the names of their holders."""

    def __init__(self, names: Mapping[bytes, str] | None = None) -> None:
        """`names` maps public keys to their holders; None trusts nobody."""
        self._names = dict(names or {})

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """Read the keys in `file`; None trusts nobody. Raises ConfigError with the faulty line."""
        if file is None:
            return cls()
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_TRUST_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"trusted signers: expected a readable file, got {file}: {error.strerror}. Correct the path."
            ) from None
        if len(text) > MAX_TRUST_BYTES:
            raise ConfigError(
                f"{file}: expected at most {MAX_TRUST_BYTES} bytes of trusted signers, got more. Remove keys."
            )
        names = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith(b"#"):
                public, name = _parse(line.strip(), f"{file}, line {number}")
                names[public] = name
        return cls(names)

    def publics(self) -> tuple[bytes, ...]:
        """Return the public keys."""
        return tuple(self._names)

    def with_signer(self, signer: Signer | None) -> TrustedSigners:
        """Return these keys and the signer's own public key; these keys alone without a signer."""
        return self if signer is None else TrustedSigners({signer.public: "this signer", **self._names})

    def verify(self, what: SignaturePurpose, message: bytes, public: bytes, signature: bytes) -> str:
        """Return the name of the signer of `message`. Raises BadTagError unless a trusted signer signed it."""
        if not public or not signature:
            raise BadTagError("expected a signature, found none")
        name = self._names.get(public)
        if name is None:
            raise BadTagError(
                f"signed by {fingerprint(public)}, who is not trusted"
                + ("" if self._names else ": no signer is, --trust FILE names them")
            )
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, what.value + message)
        except (InvalidSignature, ValueError):
            raise BadTagError(f"the signature does not match the key of {name}") from None
        return name


def fingerprint(public: bytes) -> str:
    """Return a short text for a public key."""
    return f"SHA256:{sha256(public).hexdigest()[:16]}"


def write_signer(private: Path, signer: Signer) -> None:
    """Write a private key to a file that only its owner can read. Raises FileExistsError, or another OSError."""
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as fresh:
        fresh.write(signer.export())


def _parse(line: bytes, where: str) -> tuple[bytes, str]:
    *encoded, name = line.split()
    try:
        key = load_ssh_public_key(b" ".join(encoded)) if len(encoded) == 2 else None
        text = name.decode()
    except (ValueError, UnsupportedAlgorithm):
        key, text = None, ""
    if not isinstance(key, Ed25519PublicKey) or not _NAME.fullmatch(text):
        raise ConfigError(f"{where}: expected a public key as `ssh-ed25519 BASE64 NAME`, got another line. Correct it.")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw), text
