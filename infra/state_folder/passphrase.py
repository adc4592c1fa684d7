"""Encryption of a backup with a passphrase: AES-256-GCM over chunks, with a key by scrypt.

The chunks form a STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", CRYPTO 2015): the nonce is the chunk's number and a mark of the last one. A removed,
repeated, exchanged or cut chunk is detected. Each backup has its own salt, hence its own key.
"""

from __future__ import annotations

import secrets
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from schemas.errors import SecretError

MAGIC: Final = b"pointillist sealed backup 1\n"
_SALT_BYTES: Final = 16
_CHUNK: Final = 2**20
_TAG_BYTES: Final = 16
COST = 2**17
"""Cost of scrypt: 128 MiB and about half a second for each guess."""
LEAST_PASSPHRASE: Final = 12
"""Characters of the shortest accepted passphrase."""


class SealedOutput:
    """A writable stream that encrypts into another one. `close` writes the last chunk, and leaves the other open."""

    def __init__(self, output: IO[bytes], passphrase: str) -> None:
        """Write the header. Raises SecretError for a passphrase below `LEAST_PASSPHRASE` characters."""
        if len(passphrase) < LEAST_PASSPHRASE:
            raise SecretError(
                f"the passphrase: expected {LEAST_PASSPHRASE} characters or more, got {len(passphrase)}. "
                "Choose a longer one."
            )
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._cipher = _cipher(passphrase, self._salt)
        self._output = output
        self._waiting = bytearray()
        self._number = 0
        output.write(MAGIC + self._salt)

    def write(self, data: bytes) -> int:
        """Encrypt `data`; return its length."""
        self._waiting += data
        # One chunk stays behind: the last one has another nonce.
        while len(self._waiting) > _CHUNK:
            self._put(bytes(self._waiting[:_CHUNK]), last=False)
            del self._waiting[:_CHUNK]
        return len(data)

    def close(self) -> None:
        """Write the last chunk."""
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._output.write(self._cipher.encrypt(_nonce(self._number, last=last), chunk, self._salt))
        self._number += 1


class SealedInput:
    """A readable stream that decrypts another one, which stands behind `MAGIC`."""

    def __init__(self, given: IO[bytes], passphrase: str) -> None:
        self._given = given
        self._salt = given.read(_SALT_BYTES)
        self._cipher = _cipher(passphrase, self._salt)
        self._next = given.read(_CHUNK + _TAG_BYTES)
        self._number = 0
        self._ready = memoryview(b"")
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end. Raises SecretError for another passphrase or a changed file."""
        parts: list[memoryview] = []
        while size > 0 and (self._ready or not self._ended):
            if not self._ready:
                self._open_next()
            parts.append(self._ready[:size])
            self._ready = self._ready[size:]
            size -= len(parts[-1])
        return b"".join(parts)

    def _open_next(self) -> None:
        chunk, self._next = self._next, self._given.read(_CHUNK + _TAG_BYTES)
        self._ended = not self._next
        nonce = _nonce(self._number, last=self._ended)
        try:
            self._ready = memoryview(self._cipher.decrypt(nonce, chunk, self._salt))
        except (InvalidTag, ValueError):
            what = "its own passphrase, got another one" if self._number == 0 else "a whole file, got a damaged one"
            raise SecretError(
                f"the backup: expected {what}, or the file was changed. Correct the passphrase, or use another backup."
            ) from None
        self._number += 1


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=COST, r=8, p=1).derive(passphrase.encode()))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
