"""Packed pixels: round trips, sizes, damage, and limits."""

from __future__ import annotations

import tracemalloc
import zlib
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import BadPixelsError, MalformedError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.pixels import gather, lossless, residuals
from schemas.pixels.masks import Mask, kept_mask
from schemas.pixels.packing import pack, unpack, unpack_pixels
from schemas.pointillist_pb2 import LOSSLESS, RAW

KEY = derive_camera_key(b"a fleet secret of tests", CameraId("site/one"))
PROFILES = pytest.mark.parametrize("profile", [RAW, LOSSLESS])


def picture_of(kind: str, height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise, waves, sensor grain, one value, or bright specks."""
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    match kind:
        case "noise":
            return rng.integers(0, 256, shape, dtype=np.uint8)
        case "smooth":
            y, x, c = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
            return np.asarray(128 + 90 * np.sin(x / 9 + c) * np.cos(y / 7), np.uint8)
        case "grain":
            return np.asarray(100 + rng.normal(0, 4, shape), np.uint8)
        case "flat":
            return np.full(shape, 200, np.uint8)
        case _:
            return np.where(rng.random(shape) < 0.02, 255, 0).astype(np.uint8)


def dropped_of(drop_ratio: float) -> int:
    return round(drop_ratio * 64)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(("noise", "smooth", "grain", "flat", "specks")),
    st.integers(1, 45),
    st.integers(1, 45),
    st.sampled_from((1, 3)),
    st.sampled_from((0.0, 0.02, 0.25, 0.7)),
    st.integers(0, 1000),
    st.sampled_from((RAW, LOSSLESS)),
)
def test_unpacking_restores_every_kept_pixel_and_zero_elsewhere(
    kind: str, height: int, width: int, channels: int, drop_ratio: float, seed: int, profile: int
) -> None:
    picture = picture_of(kind, height, width, channels, seed)
    kept = kept_mask(KEY, 1, seed, height, width, dropped_of(drop_ratio))
    data = pack(picture, kept, profile)
    raw_bytes = int(kept.sum()) * channels
    assert len(data) == raw_bytes if profile == RAW else len(data) <= raw_bytes + 1
    np.testing.assert_array_equal(unpack(data, kept, channels, profile), picture * kept[..., None])
    np.testing.assert_array_equal(unpack_pixels(data, kept, channels, profile), picture[kept])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from((1, 3)), st.data())
def test_pictures_with_any_mask_are_restored(height: int, width: int, channels: int, data: st.DataObject) -> None:
    rows = st.lists(st.booleans(), min_size=width, max_size=width)
    kept = np.array(data.draw(st.lists(rows, min_size=height, max_size=height)))
    picture = picture_of("smooth", height, width, channels)
    packed = pack(picture, kept, LOSSLESS)
    np.testing.assert_array_equal(unpack(packed, kept, channels, LOSSLESS), picture * kept[..., None])
    # The size of the encoder's strips does not affect the data.
    strip = data.draw(st.integers(1, 30))
    with patch.object(residuals, "_STRIP_PIXELS", strip), patch.object(gather, "_STRIP_PIXELS", strip):
        assert pack(picture, kept, LOSSLESS) == packed
        assert pack(picture, kept, RAW) == picture[kept].tobytes()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "method"), [("grain", lossless.LEFT), ("smooth", lossless.PLANE)])
def test_the_better_predictor_is_chosen_and_exact(kind: str, method: int, channels: int) -> None:
    picture = picture_of(kind, 40, 43, channels)
    kept = kept_mask(KEY, 1, 1, 40, 43, 16)
    data = pack(picture, kept, LOSSLESS)
    assert data[0] == method
    np.testing.assert_array_equal(unpack(data, kept, channels, LOSSLESS), picture * kept[..., None])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("channels", [1, 3])
def test_dropped_pixels_do_not_affect_the_packed_bytes(seed: int, channels: int) -> None:
    # The choice of the predictor is included: stripes of two close levels make both almost equally good.
    random = np.random.default_rng(seed)
    kept = kept_mask(KEY, 1, seed, 64, 72, 40)
    stripes = np.broadcast_to((100 + np.arange(72) % 2)[None, :, None], (64, 72, channels)).astype(np.uint8)
    packed = {pack(stripes, kept, LOSSLESS)}
    for _ in range(2):
        noisy = stripes.copy()
        noisy[~kept] = random.integers(0, 256, (int((~kept).sum()), channels), np.uint8)
        packed.add(pack(noisy, kept, LOSSLESS))
    assert len(packed) == 1


def test_raw_data_are_the_kept_pixels_in_raster_order_with_interleaved_channels() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    kept = np.array([[True, False], [True, True]])
    assert pack(picture, kept, RAW) == bytes([0, 1, 2, 6, 7, 8, 9, 10, 11])


@PROFILES
def test_a_view_is_packed_like_its_copy(profile: int) -> None:
    picture = picture_of("noise", 20, 30, 3)[::2, ::-1]
    kept = kept_mask(KEY, 1, 1, 10, 30, 16)
    np.testing.assert_array_equal(unpack(pack(picture, kept, profile), kept, 3, profile), picture * kept[..., None])


@pytest.mark.parametrize(("kind", "at_most"), [("smooth", 0.4), ("flat", 0.01), ("noise", 1.0001)])
def test_lossless_data_are_as_short_as_the_picture_allows(kind: str, at_most: float) -> None:
    picture = picture_of(kind, 240, 320, 3)
    kept = kept_mask(KEY, 1, 1, 240, 320, 16)
    assert len(pack(picture, kept, LOSSLESS)) <= at_most * kept.sum() * 3


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from((1, 3)), st.sampled_from((RAW, LOSSLESS)), st.integers(0, 2))
def test_any_bytes_decode_or_raise_a_wire_error(data: bytes, channels: int, profile: int, method: int) -> None:
    kept = kept_mask(KEY, 1, 1, 9, 9, 40)
    for candidate in (data, bytes((method,)) + data):
        try:
            pixels = unpack_pixels(candidate, kept, channels, profile)
        except WireError:
            continue
        assert pixels.shape == (kept.sum(), channels)


@pytest.mark.parametrize("kind", ["smooth", "flat", "noise"])
def test_any_changed_or_cut_lossless_data_decodes_or_raises_bad_pixels(kind: str) -> None:
    kept = kept_mask(KEY, 1, 1, 17, 19, 16)
    data = pack(picture_of(kind, 17, 19, 3), kept, LOSSLESS)
    rng = np.random.default_rng(5)
    changed = [data[:cut] for cut in range(len(data))]
    changed += [data + b"\0"]
    for place in range(len(data)):
        mutated = bytearray(data)
        mutated[place] ^= int(rng.integers(1, 256))
        changed.append(bytes(mutated))
    refused = 0
    for candidate in changed:
        try:
            pixels = unpack_pixels(candidate, kept, 3, LOSSLESS)
        except BadPixelsError:
            refused += 1
        else:
            assert pixels.shape == (kept.sum(), 3)
    assert refused > len(data)  # every cut and the trailing byte at least


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_decompression_bomb_uses_no_more_memory_than_the_announced_frame() -> None:
    bomb = _deflated(bytes(32 * 2**20))
    kept: Mask = np.ones((64, 64), dtype=np.bool_)
    bitmap = _deflated(b"\xff" * (64 * 64 * 3 // 16))
    for data in (bomb, bitmap + bomb):
        tracemalloc.start()
        with pytest.raises(BadPixelsError):
            unpack_pixels(bytes((lossless.PLANE,)) + data, kept, 3, LOSSLESS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * 2**20


@pytest.mark.parametrize("bitmap", [b"\x01", b"\x40"])
def test_pairs_beyond_the_frame_are_rejected(bitmap: bytes) -> None:
    # Two kept grey pixels are one pair; the bitmap's byte has room for eight.
    kept: Mask = np.ones((1, 2), dtype=np.bool_)
    with pytest.raises(BadPixelsError, match="1 pairs"):
        unpack_pixels(bytes((lossless.LEFT,)) + _deflated(bitmap) + _deflated(b"ab"), kept, 1, LOSSLESS)


@pytest.mark.parametrize(
    ("data", "profile", "message"),
    [
        (b"abc", RAW, "4 pixels of 1 bytes, got 3"),
        (b"", LOSSLESS, "method"),
        (b"\x09abcd", LOSSLESS, "method 0, 1 or 2, got b'\\\\t'"),
        (b"\x00abc", LOSSLESS, "4 stored bytes, got 3"),
        (b"\x01\xff", LOSSLESS, "Deflate"),
    ],
)
def test_errors_name_the_expected_and_the_received_value(data: bytes, profile: int, message: str) -> None:
    with pytest.raises(BadPixelsError, match=message):
        unpack_pixels(data, np.ones((2, 2), dtype=np.bool_), 1, profile)


def test_an_unknown_profile_is_rejected_by_pack_and_unpack() -> None:
    kept = np.ones((2, 2), dtype=np.bool_)
    with pytest.raises(MalformedError, match="got 7"):
        pack(np.zeros((2, 2, 1), np.uint8), kept, 7)
    with pytest.raises(MalformedError, match="got 7"):
        unpack(b"", kept, 1, 7)
