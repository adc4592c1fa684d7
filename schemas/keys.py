"""Camera keys: derived from the fleet secret, they sign messages and hide which pixels were kept."""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from hashlib import blake2b, sha256
from typing import Final

from schemas.errors import BadTag, RevokedKey, SecretError
from schemas.identity import CameraId
from schemas.limits import CAMERAS_AT_HAND

KEY_BYTES: Final = 32
MAX_GENERATION: Final = 2**16 - 1
TAG_BYTES: Final = 8
TAG_FIELD: Final = b"\x79"
"""Key byte of protobuf field 15 with wire type fixed64."""

_SHORT: Final = 2**16
_IDENTITY = struct.Struct("<QQ")
_SEED = struct.Struct("<II")
_SIGNED = struct.Struct("<q")
_MASK: Final = b"pl-mask"
_CODEBOOK: Final = b"pl-codebook"
_PROBE: Final = b"pl-probe"
_PREPROCESS: Final = b"pl-preprocess"
_MODELS_INFO: Final = b"pointillist v1 models key\0"


class Purpose(Enum):
    """What a keyed hash is for: one key never gives the same hash for two purposes."""

    FRAME = b"pl-frame"
    CONFIRM = b"pl-confirm"
    LEDGER = b"pl-ledger"
    COMMAND = b"pl-command"
    KEY_REQUEST = b"pl-key-request"
    PROBE_REQUEST = b"pl-probe-req"
    META = b"pl-meta"
    STATUS = b"pl-status"


class CameraKey:
    """The key of one camera in one generation. It never leaves the process in a log or a metric."""

    __slots__ = ("_codebook_seeds", "_hashes", "_key", "camera_id", "generation")

    def __init__(self, camera_id: CameraId, generation: int, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SecretError(f"a camera key has {KEY_BYTES} bytes, got {len(key)}")
        self.camera_id = camera_id
        self.generation = generation
        self._key = key
        # Copied for each use: a hash that has taken its key in already saves half of the work. Made when first needed:
        # no role needs all of them, and of many cameras they would take most of the memory and of the time.
        self._hashes: dict[bytes, blake2b] = {}
        self._codebook_seeds: dict[int, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"CameraKey({self.camera_id!r}, generation={self.generation})"

    def export(self) -> str:
        """The text that `pointillist key` prints and a device is given: generation and key in hexadecimal."""
        return f"{self.generation}:{self._key.hex()}"

    @classmethod
    def from_export(cls, camera_id: CameraId, text: str) -> CameraKey:
        """Read back what `export` wrote."""
        generation, _, key = text.strip().partition(":")
        try:
            return cls(camera_id, int(generation), bytes.fromhex(key))
        except ValueError:
            raise SecretError(
                "a camera key is written generation:64 hexadecimal digits, as `pointillist key` prints it"
            ) from None

    def sign(self, purpose: Purpose, *parts: bytes | memoryview) -> bytes:
        """The `parts` of a serialised message without its tag, followed by the tag field."""
        tag = self._tag(purpose)
        for part in parts:
            tag.update(part)
        return b"".join((*parts, TAG_FIELD, tag.digest()))

    def verify(self, purpose: Purpose, payload: bytes) -> None:
        """Raise `BadTag` unless `payload` ends in the tag that `sign` gives."""
        tag = self._tag(purpose)
        # Of what is short a copy costs less than a view.
        body = payload if len(payload) < _SHORT else memoryview(payload)
        tag.update(body[: -TAG_BYTES - 1])
        if not (
            payload[-TAG_BYTES - 1 : -TAG_BYTES] == TAG_FIELD
            and hmac.compare_digest(tag.digest(), payload[-TAG_BYTES:])
        ):
            raise BadTag(f"the tag does not match the key of {self.camera_id}, generation {self.generation}")

    def frame_seed(self, boot_id: int, seq: int) -> tuple[int, int]:
        """Seed of a frame's mask: the two key words of its Philox generator."""
        return self._words(_IDENTITY.pack(boot_id, seq), _MASK)

    def preprocess_seed(self, boot_id: int, seq: int) -> int:
        """Seed of what random stages draw for a frame before the network sees it: a signed number of 64 bits."""
        seed: int = _SIGNED.unpack(self._hash(_IDENTITY.pack(boot_id, seq), _PREPROCESS))[0]
        return seed

    def codebook_seed(self, dropped_per_block: int) -> tuple[int, int]:
        """Seed of the camera's codebook for one number of dropped pixels."""
        seed = self._codebook_seeds.get(dropped_per_block)
        if seed is None:
            seed = self._codebook_seeds[dropped_per_block] = self._words(bytes((dropped_per_block,)), _CODEBOOK)
        return seed

    def is_probe(self, boot_id: int, seq: int, probe_share: float) -> bool:
        """Whether this frame is sent whole: one at a keyed position in every run of round(1 / share) frames."""
        if probe_share <= 0:
            return False
        run = max(1, round(1 / probe_share))
        word, _ = self._words(_IDENTITY.pack(boot_id, seq // run), _PROBE)
        return seq % run == word % run

    def _words(self, data: bytes, person: bytes) -> tuple[int, int]:
        first, second = _SEED.unpack(self._hash(data, person))
        return first, second

    def _tag(self, purpose: Purpose) -> blake2b:
        """The hash of a message's tag, before the message."""
        person = purpose.value
        keyed = self._hashes.get(person)
        if keyed is None:
            name = self.camera_id.encode() + b"\0"
            keyed = self._hashes[person] = blake2b(name, digest_size=TAG_BYTES, key=self._key, person=person)
        return keyed.copy()

    def _hash(self, data: bytes, person: bytes) -> bytes:
        found = self._hashes.get(person)
        if found is None:
            found = self._hashes[person] = blake2b(digest_size=_SEED.size, key=self._key, person=person)
        keyed = found.copy()
        keyed.update(data)
        return keyed.digest()


class _Expansion:
    """HKDF-SHA256 (RFC 5869) without salt, for keys of one block: what it extracts from a secret is the same for all.

    So the extraction is done once, and a key costs one HMAC.
    """

    __slots__ = ("_extracted",)

    def __init__(self, secret: bytes) -> None:
        self._extracted = hmac.digest(bytes(KEY_BYTES), secret, sha256)

    def key(self, info: bytes) -> bytes:
        """The key (32 bytes) over `info`."""
        return hmac.digest(self._extracted, info + b"\1", sha256)

    def camera_key(self, camera_id: CameraId, generation: int) -> CameraKey:
        """The key of one camera in one generation."""
        info = b"pointillist v1 camera key\0" + camera_id.encode() + b"\0" + generation.to_bytes(4, "big")
        return CameraKey(camera_id, generation, self.key(info))


def derive_camera_key(fleet_secret: bytes, camera_id: CameraId, generation: int = 0) -> CameraKey:
    """HKDF-SHA256 (RFC 5869) of the fleet secret over the camera id and the key generation."""
    return _Expansion(fleet_secret).camera_key(camera_id, generation)


class KeyRing:
    """The server's view of all keys: derived when needed, in 5 µs, a bounded number of 2 KiB each kept at hand.

    `accepted_from` names, per camera, the lowest key generation that is still accepted (0 where it says nothing):
    raising it revokes a stolen key.
    """

    def __init__(
        self, fleet_secret: bytes, accepted_from: Mapping[str, int] | None = None, capacity: int = CAMERAS_AT_HAND
    ) -> None:
        if len(fleet_secret) < 16:
            raise SecretError(f"the fleet secret has at least 16 bytes, got {len(fleet_secret)}")
        self._expansion = _Expansion(fleet_secret)
        self._accepted_from = dict(accepted_from or {})
        self._capacity = capacity
        self._keys: OrderedDict[tuple[CameraId, int], CameraKey] = OrderedDict()

    def key(self, camera_id: CameraId, generation: int) -> CameraKey:
        """The key under which a message claims to be signed; `RevokedKey` when that generation is not accepted."""
        found = self._keys.get((camera_id, generation))
        if found is not None:
            self._keys.move_to_end((camera_id, generation))
            return found
        lowest = self._accepted_from.get(camera_id, 0)
        if not lowest <= generation <= MAX_GENERATION:
            raise RevokedKey(f"{camera_id} is accepted from key generation {lowest} on, got {generation}")
        key = self._expansion.camera_key(camera_id, generation)
        self._keys[camera_id, generation] = key
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)
        return key

    def accept_from(self, lowest: Mapping[str, int]) -> None:
        """Accept these generations and later ones from now on, in place of what was accepted."""
        self._accepted_from = dict(lowest)
        for camera_id, generation in [key for key in self._keys if key[1] < lowest.get(key[0], 0)]:
            del self._keys[camera_id, generation]

    def current(self, camera_id: CameraId) -> CameraKey:
        """The key that the server signs with: the lowest accepted generation."""
        return self.key(camera_id, self._accepted_from.get(camera_id, 0))

    def models_tag(self, body: bytes) -> bytes:
        """The tag of a record that says which model is live: 32 bytes that no holder of a camera key can make."""
        key = self._expansion.key(_MODELS_INFO)
        return blake2b(body, digest_size=32, key=key, person=b"pl-models").digest()
