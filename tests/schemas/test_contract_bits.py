"""Bits that cameras in the field and records in Kafka rely on. A change here changes the contract."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing, Purpose
from schemas.messages.frame import Encoding, Truth, encode_frame
from schemas.messages.models import bundle_digest
from schemas.pointillist_pb2 import RAW, BundleFile, Frame


def key() -> CameraKey:
    return CameraKey(CameraId("site/one"), 3, bytes(range(32)), bytes(range(32)))


def ring() -> KeyRing:
    return KeyRing(bytes(range(32)))


@pytest.mark.parametrize(
    ("purpose", "tag"),
    [
        (Purpose.FRAME, "ec19731803341018"),
        (Purpose.CONFIRM, "a11d56635bdf9551"),
        (Purpose.LEDGER, "f6070c51a700e80f"),
        (Purpose.COMMAND, "212d9b315bf5fdc5"),
        (Purpose.VERDICT, "bac05ef92019f1b0"),
        (Purpose.KEY_REQUEST, "52d6404261da2a5a"),
    ],
)
def test_the_tag_of_a_message_never_changes(purpose: Purpose, tag: str) -> None:
    assert key().sign(purpose, b"body") == b"body\x79" + bytes.fromhex(tag)


def test_the_bits_of_a_raw_message_never_change() -> None:
    found = sha256()
    for height, width, channels in [(1, 1, 1), (8, 8, 3), (32, 32, 3), (45, 61, 3), (45, 61, 1), (200, 333, 3)]:
        y, x, c = np.meshgrid(*(np.arange(size) for size in (height, width, channels)), indexing="ij")
        picture = np.asarray((y * y * 3 + x * x * (2 + c) + x * y) // 37 % 256, np.uint8)
        for seq in (0, 5, 200, 2**40):
            for dropped in (0, 16, 56):
                payload = encode_frame(key(), 7, seq, 1234567, picture, Encoding(dropped, 0.05, RAW), Truth(3))
                found.update(payload)
                assert Frame.FromString(payload).SerializeToString() == payload
    assert found.hexdigest()[:16] == "1478ac654678cf56"


def test_the_seeds_and_probes_of_a_key_never_change() -> None:
    assert key().frame_seed(5, 6) == (393697, 784608340)
    assert key().codebook_seed(16) == (3725560244, 323807790)
    assert [seq for seq in range(60) if key().is_probe(5, seq, 0.1)] == [0, 12, 24, 38, 40, 56]


def test_the_keys_derived_from_a_fleet_secret_never_change() -> None:
    assert ring().key(CameraId("site/one"), 3).export() == (
        "3:7aabadf3f11c0689687e015abcc6643b12f38d17049e40decc09ac0f33e79637"
        "493170a49c167421a7ee5f53407f344f63c42f152a2b0a548799ff61eb8cf3d7"
    )


def test_a_fleet_secret_of_sixteen_bytes_is_long_enough() -> None:
    assert KeyRing(bytes(16)).current(CameraId("site/one")).generation == 0


def test_the_digest_of_a_bundle_never_changes() -> None:
    files = [BundleFile(name="b", size=2, sha256=bytes(32)), BundleFile(name="a", size=1, sha256=b"\1" * 32)]
    assert bundle_digest(files) == bundle_digest(reversed(files))
    assert bundle_digest(files) == "f883b247cf802aae655ecae9841755ca3c58b13919d303259c5dc60511002b77"
