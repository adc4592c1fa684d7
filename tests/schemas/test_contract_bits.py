"""What cameras in the field and records in Kafka rely on to the bit. A change here is a change of the contract."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from schemas.frame import Encoding, Truth, encode_frame
from schemas.identity import CameraId
from schemas.keys import CameraKey, KeyRing, Purpose
from schemas.models import bundle_digest
from schemas.pointillist_pb2 import RAW, BundleFile, Frame


def key() -> CameraKey:
    return CameraKey(CameraId("site/one"), 3, bytes(range(32)))


def ring() -> KeyRing:
    return KeyRing(bytes(range(32)))


@pytest.mark.parametrize(
    ("purpose", "tag"),
    [
        (Purpose.FRAME, "c8184df7d6b7cc7e"),
        (Purpose.CONFIRM, "d430f4829b125bd5"),
        (Purpose.LEDGER, "f4021445e706d0c9"),
        (Purpose.COMMAND, "dc3301afc6af97b1"),
        (Purpose.KEY_REQUEST, "948a950ee834ef16"),
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
    assert found.hexdigest()[:16] == "8b790e5fb2d588fe"


def test_the_seeds_and_probes_of_a_key_never_change() -> None:
    assert key().frame_seed(5, 6) == (393697, 784608340)
    assert key().codebook_seed(16) == (3725560244, 323807790)
    assert [seq for seq in range(60) if key().is_probe(5, seq, 0.1)] == [0, 12, 24, 38, 40, 56]


def test_the_keys_that_a_fleet_secret_gives_never_change() -> None:
    assert ring().key(CameraId("site/one"), 3).export() == (
        "3:03f6d366ee2f3c2ef96be87b3461199be3a569fe89e1dbbe67c2a8024331b5cc"
    )


def test_a_fleet_secret_of_sixteen_bytes_is_long_enough() -> None:
    assert KeyRing(bytes(16)).current(CameraId("site/one")).generation == 0


def test_the_digest_of_a_bundle_never_changes() -> None:
    files = [BundleFile(name="b", size=2, sha256=bytes(32)), BundleFile(name="a", size=1, sha256=b"\1" * 32)]
    assert bundle_digest(files) == bundle_digest(reversed(files))
    assert bundle_digest(files) == "f883b247cf802aae655ecae9841755ca3c58b13919d303259c5dc60511002b77"
