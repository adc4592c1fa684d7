"""Sealed pixels: AES in counter mode, compared with an oracle, and unreadable without the key."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import MalformedError, SecretError
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KEY_BYTES, KeyRing, derive_camera_key
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import Encoding, decode_picture, encode_frame, open_frame, open_keyed_frame
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, RAW

SECRET = b"a fleet secret of tests"
CAMERA, OTHER = CameraId("site/one"), CameraId("site/two")
KEY = derive_camera_key(SECRET, CAMERA)
FLEET = KeyRing(SECRET)
BRIDGE = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))


def flat(value: int) -> Picture:
    return np.full((32, 32, 3), value, np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 2**63 - 1), st.integers(0, 2**53 - 1), st.binary(max_size=100))
def test_pixels_are_sealed_by_aes_256_in_counter_mode_with_a_key_for_each_boot(
    boot_id: int, seq: int, data: bytes
) -> None:
    picture_key = bytes.fromhex(KEY.export().partition(":")[2])[KEY_BYTES:]
    boot_key = hashlib.blake2b(boot_id.to_bytes(8, "little"), digest_size=32, key=picture_key, person=b"pl-seal")
    counter = seq.to_bytes(12, "big") + (2).to_bytes(4, "big")
    oracle = Cipher(algorithms.AES(boot_key.digest()), modes.CTR(counter)).encryptor()
    sealed = bytes(KEY.opened(boot_id, seq, data))
    assert sealed == oracle.update(data)
    assert KEY.opened(boot_id, seq, sealed) == data


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_message_contains_only_sealed_pixels_of_unchanged_length(profile: int, share: float) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    frame, key = open_keyed_frame(CAMERA, encode_frame(KEY, 5, 6, 7, picture, Encoding(16, share, profile)), FLEET)
    opened = bytes(key.opened(5, 6, frame.pixels))
    assert len(opened) == len(frame.pixels)
    assert frame.whole == bool(share)
    differ = np.mean(np.frombuffer(opened, np.uint8) != np.frombuffer(frame.pixels, np.uint8))
    assert differ > 0.95
    decoded, kept = decode_picture(key, frame)
    np.testing.assert_array_equal(decoded[kept], picture[kept])


def test_equal_pictures_are_sealed_differently_for_each_frame_boot_camera_and_generation() -> None:
    keys = (KEY, derive_camera_key(SECRET, OTHER), derive_camera_key(SECRET, CAMERA, 1))
    places = [(key, boot, seq) for key in keys for boot in (1, 2) for seq in (0, 1)]
    sealed = {bytes(key.opened(boot, seq, bytes(64))) for key, boot, seq in places}
    assert len(sealed) == len(places)


def test_sealed_black_and_white_frames_are_indistinguishable() -> None:
    for value in (0, 255):
        frame = open_frame(CAMERA, encode_frame(KEY, 5, 9, 1, flat(value), Encoding(0)), FLEET)
        counts = np.bincount(np.frombuffer(frame.pixels, np.uint8), minlength=256)
        # Of 3,072 uniform bytes each value occurs 12 times, and more than 40 times only once in 10^8 tries.
        assert counts.max() < 40


def test_a_bridge_verifies_frames_and_cannot_open_them_or_compute_masks() -> None:
    frame, key = open_keyed_frame(CAMERA, encode_frame(KEY, 5, 6, 7, flat(9), Encoding(16)), BRIDGE)
    for read in (
        lambda: decode_picture(key, frame),
        lambda: key.opened(5, 6, frame.pixels),
        lambda: kept_mask(key, 5, 6, 32, 32, 16),
        lambda: key.is_probe(5, 6, 0.5),
        lambda: key.preprocess_seed(5, 6),
        lambda: key.export(),
        lambda: BRIDGE.previews,
        lambda: BRIDGE.verdicts,
    ):
        with pytest.raises(SecretError, match="root key"):
            read()


def test_a_sealed_preview_opens_only_for_its_frame_camera_and_kind() -> None:
    frame = Identity(CAMERA, 5, 6)
    sealed = FLEET.previews.seal(b"a JPEG", frame, "preview")
    assert b"JPEG" not in sealed
    assert FLEET.previews.open(sealed, frame, "preview") == b"a JPEG"
    assert FLEET.previews.seal(b"a JPEG", frame, "preview") != sealed
    for keys, other, kind, changed in (
        (FLEET, Identity(OTHER, 5, 6), "preview", sealed),
        (FLEET, Identity(CAMERA, 5, 7), "preview", sealed),
        (FLEET, frame, "evidence", sealed),
        (FLEET, frame, "preview", sealed[:-1]),
        (FLEET, frame, "preview", sealed[:5]),
        (FLEET, frame, "preview", sealed[:-1] + bytes((sealed[-1] ^ 1,))),
        (KeyRing(b"the secret of another fleet"), frame, "preview", sealed),
    ):
        with pytest.raises(MalformedError, match="sealed"):
            keys.previews.open(changed, other, kind)


def test_an_empty_picture_is_sealed_as_empty() -> None:
    frame = Identity(CAMERA, 5, 6)
    assert FLEET.previews.seal(b"", frame, "preview") == b"" == FLEET.previews.open(b"", frame, "preview")
