"""Sealed pictures: cameras' frames are encrypted, and so are pictures for people, in Kafka and in stores."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import MalformedError
from schemas.identity import Identity

_BOOT: Final = b"pl-seal"
_PREVIEWS: Final = b"pl-previews"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
SEAL_BYTES: Final = _NONCE_BYTES + _TAG_BYTES
"""Bytes that `PreviewBox.seal` adds to a picture."""
SPARE_BYTES: Final = 16
"""Bytes that `BootCipher.into` writes behind the sealed bytes, to be overwritten."""


class BootCipher:
    """The stream cipher of one boot of a camera: AES-256 in counter mode, with a separate key for each boot.

    The first counter block of frame `seq` is `seq` in 96 bits, then 2 in 32 bits: room for 64 GiB a frame. A pair of
    boot and sequence number must never seal two pictures: an attacker with both learns their difference.

    The counter is GCM's, and GCM computes it, because libraries optimise GCM most: 80 µs for 746 kB, compared with 340
    µs in plain counter mode (ADR 33). GCM's own tag is discarded, because the bridge must verify without this key.
    Sealing and opening are the same operation.
    """

    __slots__ = ("_cipher",)

    def __init__(self, picture_key: bytes, boot_id: int) -> None:
        boot_key = blake2b(boot_id.to_bytes(8, "little"), digest_size=32, key=picture_key, person=_BOOT)
        self._cipher = AESGCM(boot_key.digest())

    def applied(self, seq: int, data: bytes | memoryview) -> memoryview:
        """Return `data` sealed or opened."""
        return memoryview(self._cipher.encrypt(seq.to_bytes(_NONCE_BYTES, "big"), data, None))[: len(data)]

    def into(self, seq: int, data: bytes | memoryview, place: memoryview) -> None:
        """Seal or open `data` into `place`, which has `SPARE_BYTES` more than `data`."""
        self._cipher.encrypt_into(seq.to_bytes(_NONCE_BYTES, "big"), data, None, place)


class PreviewBox:
    """The cipher of pictures for people, each bound to one frame of one camera: AES-256-GCM with a random nonce before
    it.

    Each camera has its own key. Nonces stay distinct for 2^32 pictures of one camera: one a second for 136 years.
    """

    def __init__(self, previews_key: bytes) -> None:
        self._key = previews_key

    def seal(self, picture: bytes, identity: Identity, what: str) -> bytes:
        """Return the sealed `picture`, or empty bytes for an empty one; `what` names the kind of picture."""
        if not picture:
            return b""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher(identity).encrypt(nonce, picture, _about(identity, what))

    def open(self, sealed: bytes, identity: Identity, what: str) -> bytes:
        """Return the picture that was sealed; `MalformedError` if it belongs to another frame or key."""
        if not sealed:
            return b""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher(identity).decrypt(nonce, body, _about(identity, what))
        except (InvalidTag, ValueError):
            raise MalformedError(f"expected the sealed {what} of {identity}") from None

    def _cipher(self, identity: Identity) -> AESGCM:
        camera = identity.camera_id.encode()
        return AESGCM(blake2b(camera, digest_size=32, key=self._key, person=_PREVIEWS).digest())


def _about(identity: Identity, what: str) -> bytes:
    return f"{what}\0{identity}".encode()
