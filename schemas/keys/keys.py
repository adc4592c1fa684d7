"""Keys by camera and by role: they sign messages, seal pictures and hide which pixels were kept."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from hashlib import blake2b
from threading import Lock
from typing import Final

from schemas.errors import BadTagError, RevokedKeyError, SecretError
from schemas.identity import CameraId
from schemas.keys.roots import Root, Roots, expanded
from schemas.keys.sealing import SPARE_BYTES, BootCipher, PreviewBox
from schemas.keys.tags import TAG_BYTES, TAG_FIELD, TRAILER_BYTES, Purpose, Tagger
from schemas.limits import MAX_CAMERAS

__all__ = ["KEY_BYTES", "MAX_GENERATION", "TAG_BYTES", "CameraKey", "KeyRing", "Purpose", "derive_camera_key"]

KEY_BYTES: Final = 32
"""Length of each of a camera's two keys."""
MAX_GENERATION: Final = 2**16 - 1

_IDENTITY = struct.Struct("<QQ")
_SEED = struct.Struct("<II")
_SIGNED = struct.Struct("<q")
_MASK: Final = b"pl-mask"
_CODEBOOK: Final = b"pl-codebook"
_PROBE: Final = b"pl-probe"
_PREPROCESS: Final = b"pl-preprocess"
_CHOICE: Final = b"pl-choice"
_LONGEST_RUN: Final = 2.0**63
"""Most consecutive frames of which one is a probe; a share may be so small that its inverse is infinite."""


class CameraKey:
    """The keys of one camera in one generation. They never appear in a log or a metric.

    The authentication key signs. The picture key seals frames and seeds masks, codebooks and probes. A bridge has no
    picture key: methods that need it raise `SecretError` there.
    """

    __slots__ = (
        "_authentication",
        "_cipher",
        "_codebook_seeds",
        "_hashes",
        "_picture",
        "_tags",
        "camera_id",
        "generation",
    )

    def __init__(
        self, camera_id: CameraId, generation: int, authentication: bytes, picture: bytes | None = None
    ) -> None:
        for key in (authentication, picture):
            if key is not None and len(key) != KEY_BYTES:
                raise SecretError(
                    f"camera key: expected {KEY_BYTES} bytes, got {len(key)}. Print it with `pointillist key`."
                )
        self.camera_id = camera_id
        self.generation = generation
        self._authentication = authentication
        self._picture = picture
        self._tags = Tagger(authentication)
        self._cipher: tuple[int, BootCipher] | None = None
        # The hash state that has absorbed the key is copied for each use, which saves half of the work. It is made on
        # first use: no role needs all states, and for many cameras they would take most of the memory and time.
        self._hashes: dict[bytes, blake2b] = {}
        self._codebook_seeds: dict[int, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"CameraKey({self.camera_id!r}, generation={self.generation})"

    def export(self) -> str:
        """Return the text that `pointillist key` prints for a device: generation and both keys in hexadecimal."""
        return f"{self.generation}:{self._authentication.hex()}{self._picture_key.hex()}"

    @classmethod
    def from_export(cls, camera_id: CameraId, text: str) -> CameraKey:
        """Read the text of `export`."""
        generation, _, digits = text.strip().partition(":")
        try:
            keys = bytes.fromhex(digits)
            if len(keys) != 2 * KEY_BYTES or not 0 <= int(generation) <= MAX_GENERATION:
                raise ValueError
            return cls(camera_id, int(generation), keys[:KEY_BYTES], keys[KEY_BYTES:])
        except ValueError:
            raise SecretError(
                f"camera key: expected generation:{4 * KEY_BYTES} hexadecimal digits, got another form. Print it "
                "with `pointillist key`."
            ) from None

    # Signatures

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        """Return a serialised `message` without its tag, followed by the tag field."""
        return self._tags.signed(purpose, self.camera_id, message)

    def verify(self, purpose: Purpose, payload: bytes) -> None:
        """Raise `BadTagError` unless `payload` ends in the tag that `sign` gives."""
        if not self._tags.holds(purpose, self.camera_id, payload):
            raise BadTagError(f"the tag does not match the key of {self.camera_id}, generation {self.generation}")

    # Pictures

    def seal_frame(self, boot_id: int, seq: int, head: bytes, pixels: bytes | memoryview) -> bytes:
        """Return the signed message of a frame: `head`, then the `pixels` sealed, then the tag.

        Call it once for each boot and sequence number: see `producers.camera.sealing`.
        """
        # One buffer for all: copying a large frame takes as long as sealing it.
        end = len(head) + len(pixels)
        message = bytearray(end + max(SPARE_BYTES, TRAILER_BYTES))
        message[: len(head)] = head
        view = memoryview(message)
        self._boot_cipher(boot_id).into(seq, pixels, view[len(head) : end + SPARE_BYTES])
        message[end : end + TRAILER_BYTES] = TAG_FIELD + self._tags.tag(Purpose.FRAME, self.camera_id, view[:end])
        return bytes(view[: end + TRAILER_BYTES])

    def opened(self, boot_id: int, seq: int, sealed: bytes) -> memoryview:
        """Return the pixels of a frame as its camera packed them."""
        return self._boot_cipher(boot_id).applied(seq, sealed)

    def frame_seed(self, boot_id: int, seq: int) -> tuple[int, int]:
        """Return the seed of a frame's mask: the two key words of its Philox generator."""
        return self._words(_IDENTITY.pack(boot_id, seq), _MASK)

    def preprocess_seed(self, boot_id: int, seq: int) -> int:
        """Return the seed of a frame's random preprocessing stages: a signed number of 64 bits."""
        seed: int = _SIGNED.unpack(self._hash(_IDENTITY.pack(boot_id, seq), _PREPROCESS))[0]
        return seed

    def choice(self, what: bytes) -> int:
        """Return a number from 0 to 2^64 - 1 that only holders of the key can predict from `what`."""
        high, low = self._words(what, _CHOICE)
        return high << 32 | low

    def codebook_seed(self, dropped_per_block: int) -> tuple[int, int]:
        """Return the seed of the camera's codebook for one number of dropped pixels."""
        seed = self._codebook_seeds.get(dropped_per_block)
        if seed is None:
            seed = self._codebook_seeds[dropped_per_block] = self._words(bytes((dropped_per_block,)), _CODEBOOK)
        return seed

    def is_probe(self, boot_id: int, seq: int, probe_share: float) -> bool:
        """Return whether this frame is a probe. The key chooses one of each round(1 / share) consecutive frames."""
        if probe_share <= 0:
            return False
        run = max(1, round(min(1 / probe_share, _LONGEST_RUN)))
        word, _ = self._words(_IDENTITY.pack(boot_id, seq // run), _PROBE)
        return seq % run == word % run

    @property
    def _picture_key(self) -> bytes:
        if self._picture is None:
            raise SecretError(
                f"secret: expected one with the root key {Root.PICTURE}, got one of a role that cannot read "
                "pictures. Print one with `pointillist key --role`."
            )
        return self._picture

    def _boot_cipher(self, boot_id: int) -> BootCipher:
        """Return the cipher of a boot. Only the last one is kept: a camera has one boot at a time."""
        found = self._cipher
        if found is None or found[0] != boot_id:
            found = self._cipher = (boot_id, BootCipher(self._picture_key, boot_id))
        return found[1]

    def _words(self, data: bytes, person: bytes) -> tuple[int, int]:
        first, second = _SEED.unpack(self._hash(data, person))
        return first, second

    def _hash(self, data: bytes, person: bytes) -> bytes:
        found = self._hashes.get(person)
        if found is None:
            found = self._hashes[person] = blake2b(digest_size=_SEED.size, key=self._picture_key, person=person)
        keyed = found.copy()
        keyed.update(data)
        return keyed.digest()


def _camera_key(roots: Roots, camera_id: CameraId, generation: int) -> CameraKey:
    info = b"pointillist v1 camera key\0" + camera_id.encode() + b"\0" + generation.to_bytes(4, "big")
    picture = expanded(roots[Root.PICTURE], info) if Root.PICTURE in roots else None
    return CameraKey(camera_id, generation, expanded(roots[Root.AUTHENTICATION], info), picture)


def derive_camera_key(fleet_secret: bytes, camera_id: CameraId, generation: int = 0) -> CameraKey:
    """Derive a camera's keys: HKDF-Expand (RFC 5869) of the fleet's roots over the camera id and the key generation."""
    return _camera_key(Roots.of_fleet(fleet_secret), camera_id, generation)


class KeyRing:
    """A role's view of all keys. A camera's key is derived on first use, in 10 µs. A bounded number of keys, 5 KiB
    each, is cached. Several threads may call `key` and `accept_from`.

    `accepted_from` maps a camera to the lowest key generation that is still accepted; the default is 0. Raising it
    revokes a stolen key.
    """

    def __init__(
        self, secret: bytes | Roots, accepted_from: Mapping[str, int] | None = None, capacity: int = MAX_CAMERAS
    ) -> None:
        """`secret` is the role's secret: its roots, or the fleet's secret, which gives all roots."""
        self._roots = secret if isinstance(secret, Roots) else Roots.of_fleet(secret)
        self._accepted_from = dict(accepted_from or {})
        self._capacity = capacity
        self._keys: OrderedDict[tuple[CameraId, int], CameraKey] = OrderedDict()
        self._lock = Lock()

    def key(self, camera_id: CameraId, generation: int) -> CameraKey:
        """Return the key that a message claims to be signed with; `RevokedKeyError` for a generation not accepted."""
        with self._lock:
            found = self._keys.get((camera_id, generation))
            if found is not None:
                self._keys.move_to_end((camera_id, generation))
                return found
            lowest = self._accepted_from.get(camera_id, 0)
            if not lowest <= generation <= MAX_GENERATION:
                raise RevokedKeyError(f"{camera_id} is accepted from key generation {lowest} on, got {generation}")
            key = _camera_key(self._roots, camera_id, generation)
            self._keys[camera_id, generation] = key
            if len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
            return key

    def accept_from(self, lowest: Mapping[str, int]) -> None:
        """Accept these generations and later ones from now on, instead of the previous ones."""
        with self._lock:
            self._accepted_from = dict(lowest)
            for camera_id, generation in [key for key in self._keys if key[1] < lowest.get(key[0], 0)]:
                del self._keys[camera_id, generation]

    @property
    def accepted_from(self) -> Mapping[str, int]:
        """Return the lowest accepted generation of each camera for which an earlier one was revoked."""
        return self._accepted_from

    def every_generation(self) -> KeyRing:
        """Return the same keys, revoked ones included: for messages that were signed and accepted before."""
        ring = copy(self)
        ring._accepted_from, ring._keys = {}, OrderedDict()
        return ring

    def current(self, camera_id: CameraId) -> CameraKey:
        """Return the key that the server signs with: the lowest accepted generation."""
        return self.key(camera_id, self._accepted_from.get(camera_id, 0))

    @property
    def system_id(self) -> str:
        """An id of the system, which reveals no key. It changes only with the fleet's secret."""
        return blake2b(key=self._roots[Root.VERDICTS], person=b"system", digest_size=4).hexdigest()

    @cached_property
    def verdicts(self) -> Tagger:
        """The tagger of processors' results."""
        return Tagger(self._roots[Root.VERDICTS])

    @cached_property
    def alerts(self) -> Tagger:
        """The tagger of alerts."""
        return Tagger(self._roots[Root.ALERTS])

    @cached_property
    def previews(self) -> PreviewBox:
        """The cipher of pictures for people."""
        return PreviewBox(self._roots[Root.PREVIEWS])

    @property
    def reads_previews(self) -> bool:
        """True if this role was given the key to pictures for people."""
        return Root.PREVIEWS in self._roots

    def of_job(self, job_id: str) -> Roots:
        """Return the root keys of one job's own copy of pictures, see `Roots.of_job`."""
        return self._roots.of_job(job_id)
