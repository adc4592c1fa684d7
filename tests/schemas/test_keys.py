"""Camera keys: derivation, tags, seeds, probes, generations, and revocation."""

from __future__ import annotations

import hashlib
import hmac
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadTagError, RevokedKeyError, SecretError
from schemas.identity import CameraId
from schemas.keys.keys import KEY_BYTES, MAX_GENERATION, CameraKey, KeyRing, Purpose, derive_camera_key

SECRET = b"a fleet secret of tests"
ONE, TWO = CameraId("site/one"), CameraId("site/two")


def hkdf_sha256(secret: bytes, info: bytes) -> bytes:
    """Return HKDF-SHA256 (RFC 5869) for one block of output and no salt."""
    return expand(hmac.new(bytes(32), secret, hashlib.sha256).digest(), info)


def expand(key: bytes, info: bytes) -> bytes:
    """Return the expand step of HKDF, for a key that is random already."""
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()


@pytest.mark.parametrize(("camera", "generation"), [(ONE, 0), (TWO, 0), (ONE, 1), (ONE, MAX_GENERATION)])
def test_the_two_keys_of_a_camera_are_hkdf_of_two_roots_over_camera_and_generation(
    camera: CameraId, generation: int
) -> None:
    info = b"pointillist v1 camera key\0" + camera.encode() + b"\0" + generation.to_bytes(4, "big")
    key = derive_camera_key(SECRET, camera, generation)
    authentication, picture = (
        expand(hkdf_sha256(SECRET, b"pointillist v1 root\0" + root), info) for root in (b"authentication", b"picture")
    )
    assert key.export() == f"{generation}:{authentication.hex()}{picture.hex()}"


def test_an_exported_key_can_be_imported_and_signs_identically() -> None:
    key = derive_camera_key(SECRET, ONE, 3)
    again = CameraKey.from_export(ONE, f" {key.export()}\n")
    assert again.generation == 3
    assert again.sign(Purpose.FRAME, b"body") == key.sign(Purpose.FRAME, b"body")


@pytest.mark.parametrize(
    "text",
    ["", "3", "x:" + "00" * 64, "3:zz", "3:" + "00" * 63, "3:" + "00" * 32, "-1:" + "00" * 64, "65536:" + "00" * 64],
)
def test_an_invalid_exported_key_is_rejected_without_showing_it(text: str) -> None:
    with pytest.raises(SecretError) as caught:
        CameraKey.from_export(ONE, text)
    assert "00" * 32 not in str(caught.value)


def test_the_repr_of_a_key_hides_it() -> None:
    key = derive_camera_key(SECRET, ONE)
    assert key.export()[2:] not in repr(key)


def test_a_tag_is_valid_only_for_its_camera_generation_purpose_and_body() -> None:
    key = derive_camera_key(SECRET, ONE)
    payload = key.sign(Purpose.FRAME, b"body")
    key.verify(Purpose.FRAME, payload)
    same_bytes = CameraKey.from_export(TWO, key.export())
    for other, purpose, changed in (
        (derive_camera_key(SECRET, TWO), Purpose.FRAME, payload),
        (same_bytes, Purpose.FRAME, payload),
        (derive_camera_key(SECRET, ONE, 1), Purpose.FRAME, payload),
        (derive_camera_key(b"another fleet secret", ONE), Purpose.FRAME, payload),
        (key, Purpose.CONFIRM, payload),
        (key, Purpose.FRAME, b"Body" + payload[4:]),
        (key, Purpose.FRAME, payload[:-1]),
        (key, Purpose.FRAME, b"x" + payload),
        (key, Purpose.FRAME, b""),
    ):
        with pytest.raises(BadTagError):
            other.verify(purpose, changed)


def test_one_key_makes_a_different_tag_for_each_purpose() -> None:
    key = derive_camera_key(SECRET, ONE)
    assert len({key.sign(purpose, b"body") for purpose in Purpose}) == len(Purpose)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 2**63 - 1), st.integers(0, 2**40))
def test_every_run_of_frames_has_exactly_one_probe(run: int, boot_id: int, index: int) -> None:
    key = derive_camera_key(SECRET, ONE)
    first = index * run
    probes = [key.is_probe(boot_id, seq, 1 / run) for seq in range(first, first + run)]
    assert sum(probes) == 1


def test_the_position_of_the_probe_in_its_run_depends_on_the_key() -> None:
    keys = [derive_camera_key(SECRET, camera) for camera in (ONE, TWO)]
    places = [[seq % 20 for seq in range(20 * 200) if key.is_probe(9, seq, 0.05)] for key in keys]
    assert places[0] != places[1]
    assert [len(set(p)) for p in places] == [20, 20]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (-1.0, 0), (1e-310, 0), (1.0, 100), (0.7, 100)])
def test_shares_of_zero_and_one_select_no_and_every_frame(share: float, expected: int) -> None:
    key = derive_camera_key(SECRET, ONE)
    assert sum(key.is_probe(1, seq, share) for seq in range(100)) == expected


def test_the_seed_of_a_codebook_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key = derive_camera_key(SECRET, ONE)
    seeds = [key.codebook_seed(dropped) for dropped in (16, 17)]
    assert seeds[0] != seeds[1]
    monkeypatch.setattr(CameraKey, "_words", None)
    assert [key.codebook_seed(dropped) for dropped in (16, 17)] == seeds


def test_seeds_are_keyed_hashes_with_their_own_personalisation() -> None:
    key = derive_camera_key(SECRET, ONE)
    secret = bytes.fromhex(key.export().partition(":")[2])[KEY_BYTES:]
    for seed, data, person in (
        (key.frame_seed(9, 7), (9).to_bytes(8, "little") + (7).to_bytes(8, "little"), b"pl-mask"),
        (key.codebook_seed(16), b"\x10", b"pl-codebook"),
    ):
        expected = hashlib.blake2b(data, digest_size=8, key=secret, person=person).digest()
        assert b"".join(word.to_bytes(4, "little") for word in seed) == expected


def test_a_higher_generation_revokes_only_the_older_keys_of_its_camera() -> None:
    keys = KeyRing(SECRET, {ONE: 2})
    for camera, generation in ((ONE, 1), (ONE, MAX_GENERATION + 1), (TWO, -1)):
        with pytest.raises(RevokedKeyError, match=f"got {generation}"):
            keys.key(camera, generation)
    assert keys.key(ONE, 2).export() == derive_camera_key(SECRET, ONE, 2).export()
    assert keys.key(ONE, 3).generation == 3
    assert keys.current(ONE).generation == 2
    assert keys.current(TWO).generation == 0


def test_a_revocation_applies_while_another_thread_uses_keys() -> None:
    keys = KeyRing(SECRET)
    for camera in (TWO, ONE):
        keys.key(camera, 0)
    uses: list[threading.Thread] = []

    class Lowest(dict[str, int]):
        """Generations during whose lookup another thread uses a cached key."""

        def get(self, camera: str, default: int = 0) -> int:  # type: ignore[override]  # the only method in use
            if not uses:
                uses.append(threading.Thread(target=keys.key, args=(TWO, 0)))
                uses[0].start()
                uses[0].join(0.1)  # without a lock, the thread would end within this time
            return super().get(camera, default)

    keys.accept_from(Lowest({ONE: 1}))
    uses[0].join()
    with pytest.raises(RevokedKeyError):
        keys.key(ONE, 0)


def test_every_generation_of_a_key_ring_opens_messages_from_before_a_revocation() -> None:
    keys = KeyRing(SECRET, {ONE: 2})
    every = keys.every_generation()
    assert every.key(ONE, 1).export() == derive_camera_key(SECRET, ONE, 1).export()
    assert every.current(ONE).generation == 0
    with pytest.raises(RevokedKeyError):
        keys.key(ONE, 1)
    assert keys.accepted_from == {ONE: 2}


def test_a_key_ring_caches_a_limited_number_of_keys() -> None:
    keys = KeyRing(SECRET, capacity=3)
    for number in range(10):
        keys.key(CameraId(f"site/{number}"), 0)
    assert len(keys._keys) == 3


def test_short_secrets_and_keys_are_rejected() -> None:
    with pytest.raises(SecretError, match="at least 16"):
        KeyRing(b"short")
    with pytest.raises(SecretError, match=f"{KEY_BYTES} bytes, got 4"):
        CameraKey(ONE, 0, b"four")


def test_a_key_caches_only_the_hashes_in_use() -> None:
    key = derive_camera_key(SECRET, ONE)
    key.verify(Purpose.FRAME, key.sign(Purpose.FRAME, b"body"))
    key.frame_seed(9, 7)
    assert set(key._hashes) == {b"pl-mask"}
    assert set(key._tags._keyed) == {Purpose.FRAME}


def test_a_key_ring_caches_the_keys_of_ten_thousand_cameras() -> None:
    keys = KeyRing(SECRET)
    cameras = [CameraId(f"site/{number}") for number in range(10_000)]
    first = [keys.key(camera, 0) for camera in cameras]
    assert all(keys.key(camera, 0) is key for camera, key in zip(cameras, first, strict=True))
