"""Tags: eight bytes at the end of a message that authenticate its author and its content."""

from __future__ import annotations

import hmac
from enum import Enum
from hashlib import blake2b
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG_BYTES: Final = 8
TAG_FIELD: Final = b"\x79"
"""Key byte of protobuf field 15 with wire type fixed64."""
TRAILER_BYTES: Final = len(TAG_FIELD) + TAG_BYTES

_SHORT: Final = 2**16
_NONCE: Final = bytes(12)
_HASH: Final = b"pl-hash"

Bytes = bytes | bytearray | memoryview


class Purpose(Enum):
    """The purpose of a tag: one key never gives the same tag for two purposes."""

    FRAME = b"pl-frame"
    CONFIRM = b"pl-confirm"
    LEDGER = b"pl-ledger"
    COMMAND = b"pl-command"
    KEY_REQUEST = b"pl-key-request"
    PROBE_REQUEST = b"pl-probe-req"
    REFUSAL = b"pl-refusal"
    META = b"pl-meta"
    STATUS = b"pl-status"
    VIEW = b"pl-view"
    VERDICT = b"pl-verdict"
    DEAD_LETTER = b"pl-dead-letter"
    ALERT = b"pl-alert"
    COMPARISON = b"pl-comparison"


class Tagger:
    """Tags under one key: hash, then pseudo-random function.

    A tag is keyed BLAKE2b, personalised by its purpose. Its input is the name of the camera and the 16 bytes of
    AES-GMAC (NIST SP 800-38D) over the message.

    CPUs of the last ten years compute GMAC at memory speed; BLAKE2b takes a millisecond for 746 kB. GMAC alone, cut to
    eight bytes, would be weak (SP 800-38D, appendix C) and would need a nonce. Here GMAC's output is never visible: it
    only has to differ between two messages. An AES key with no other use gives equal outputs for one pair in 2^108.
    BLAKE2b turns the output into the tag.
    """

    __slots__ = ("_hash", "_key", "_keyed")

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Created on first use: no role needs all hash states, and for many cameras they would take most of the memory.
        self._hash: AESGCM | None = None
        self._keyed: dict[Purpose, blake2b] = {}

    def tag(self, purpose: Purpose, name: str, message: Bytes) -> bytes:
        """Return the tag of a contiguous `message` about the camera `name`."""
        if self._hash is None:
            self._hash = AESGCM(blake2b(digest_size=32, key=self._key, person=_HASH).digest())
        keyed = self._keyed.get(purpose)
        if keyed is None:
            keyed = self._keyed[purpose] = blake2b(digest_size=TAG_BYTES, key=self._key, person=purpose.value)
        found = keyed.copy()
        found.update(name.encode() + b"\0" + self._hash.encrypt(_NONCE, b"", message))
        return found.digest()

    def signed(self, purpose: Purpose, name: str, message: bytes) -> bytes:
        """Return a serialised `message` without its tag, followed by the tag field."""
        return b"".join((message, TAG_FIELD, self.tag(purpose, name, message)))

    def holds(self, purpose: Purpose, name: str, payload: bytes) -> bool:
        """Return whether `payload` ends in the tag that `signed` gives."""
        # For short messages, a copy costs less than a view.
        body = payload if len(payload) < _SHORT else memoryview(payload)
        tag = self.tag(purpose, name, body[:-TRAILER_BYTES])
        return payload[-TRAILER_BYTES:-TAG_BYTES] == TAG_FIELD and hmac.compare_digest(tag, payload[-TAG_BYTES:])
