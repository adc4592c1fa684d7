"""Tags compared with an oracle: GMAC of another implementation, then keyed BLAKE2b."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.keys.tags import TAG_FIELD, Purpose, Tagger

KEY = bytes(range(32))


def oracle(purpose: Purpose, name: bytes, message: bytes) -> bytes:
    hash_key = hashlib.blake2b(digest_size=32, key=KEY, person=b"pl-hash").digest()
    gmac = Cipher(algorithms.AES(hash_key), modes.GCM(bytes(12))).encryptor()
    gmac.authenticate_additional_data(message)
    gmac.finalize()
    body = name + b"\0" + gmac.tag
    return hashlib.blake2b(body, digest_size=8, key=KEY, person=purpose.value).digest()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(Purpose)), st.text("abc/", max_size=9), st.binary(max_size=200))
def test_a_tag_is_keyed_blake2b_over_the_name_and_gmac_of_the_message(
    purpose: Purpose, name: str, message: bytes
) -> None:
    signed = Tagger(KEY).signed(purpose, name, message)
    assert signed == message + TAG_FIELD + oracle(purpose, name.encode(), message)
    assert Tagger(KEY).holds(purpose, name, signed)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65_535, 65_536, 70_000])
def test_any_changed_bit_of_a_message_invalidates_its_tag(size: int) -> None:
    tagger, message = Tagger(KEY), bytes(size)
    signed = tagger.signed(Purpose.FRAME, "a/b", message)
    for bit in {0, 8 * size // 2, 8 * (size - 1), 8 * size, 8 * len(signed) - 1} - {-8}:
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        assert not tagger.holds(Purpose.FRAME, "a/b", bytes(changed))
    assert not tagger.holds(Purpose.FRAME, "a/b", signed + b"\0")
    assert not tagger.holds(Purpose.FRAME, "a/b", b"\0" + signed)


def test_a_tag_depends_on_its_key_purpose_and_camera() -> None:
    tags = {Tagger(KEY).tag(purpose, "a/b", b"body") for purpose in Purpose}
    assert len(tags) == len(Purpose)
    others = {Tagger(bytes(32)).tag(Purpose.FRAME, "a/b", b"body"), Tagger(KEY).tag(Purpose.FRAME, "a/c", b"body")}
    assert not others & tags


def test_a_message_shorter_than_a_tag_is_invalid() -> None:
    for length in range(9):
        assert not Tagger(KEY).holds(Purpose.FRAME, "a/b", bytes(length))
