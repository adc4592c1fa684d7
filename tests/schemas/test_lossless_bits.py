"""The bits of the lossless format."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.pixels import lossless, residuals
from schemas.pixels.masks import Mask

# Versions of zlib may compress differently, so the tests inflate the data first. All other bits are pinned: the frames
# of every camera in the field must stay readable, and as small.


def holes(height: int, width: int, share: int) -> Mask:
    """Return a mask that drops one pixel of `share`, and keeps the second row and the end of the fifth complete."""
    at = np.arange(height * width).reshape(height, width)
    kept: Mask = (at * 7919 + at // 5) % share != 0
    kept[1] = True
    kept[4, width // 2 :] = True
    return kept


def waves(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return np.asarray((y * y * 3 + x * x * (2 + c) + x * y) // 37 % 256, np.uint8)


def grain(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.PCG64(7)).integers(90, 99, (height, width, channels), np.uint8)


def specks(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    at = np.arange(height * width * channels).reshape(height, width, channels)
    return np.where(at % 61 == 0, 250, 7).astype(np.uint8)


def inflated(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the method, the bitmap and the pairs that `encode` wrote."""
    first = zlib.decompressobj(-zlib.MAX_WBITS)
    bitmap = first.decompress(data[1:])
    second = zlib.decompressobj(-zlib.MAX_WBITS)
    values = second.decompress(first.unused_data)
    assert first.eof
    assert second.eof
    assert not second.unused_data
    return data[0], bitmap, values


@pytest.mark.parametrize(
    ("picture", "size", "share", "method", "lengths", "digest"),
    [
        (waves, (40, 43, 3), 4, 2, (199, 3178), "0c94393433c6960f"),
        (waves, (61, 1100, 3), 3, 2, (8491, 135846), "7db7bf4c0fb38356"),
        (waves, (80, 600, 1), 4, 2, (1823, 14644), "5cbd2c975045713b"),
        (grain, (40, 43, 3), 4, 1, (199, 3178), "6537d2c5d660caa1"),
        (grain, (70, 530, 1), 3, 1, (1563, 24998), "1e1e455aecf0f5fa"),
        (specks, (33, 35, 3), 4, 1, (134, 186), "35042c41ece06739"),
        (specks, (33, 35, 1), 5, 1, (59, 48), "ddadaf2b96e6698f"),
    ],
)
def test_the_bits_of_lossless_never_change(
    picture: Callable[[int, int, int], NDArray[np.uint8]],
    size: tuple[int, int, int],
    share: int,
    method: int,
    lengths: tuple[int, int],
    digest: str,
) -> None:
    frame, kept = picture(*size), holes(*size[:2], share)
    data = lossless.encode(frame, kept)
    found, bitmap, values = inflated(data)
    np.testing.assert_array_equal(lossless.decode(data, kept, size[2]), frame[kept])
    assert (found, len(bitmap), len(values)) == (method, *lengths)
    assert hashlib.sha256(bitmap + values).hexdigest()[:16] == digest


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_without_kept_pixels_do_not_affect_others(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residuals, "_STRIP_PIXELS", 40)
    frame, kept = waves(12, 20, channels), np.ones((12, 20), dtype=np.bool_)
    kept[:4] = kept[6:8] = False
    kept[4:, ::3] = False
    np.testing.assert_array_equal(lossless.decode(lossless.encode(frame, kept), kept, channels), frame[kept])


def test_pixels_are_stored_unchanged_if_compression_does_not_shorten_them() -> None:
    kept: Mask = np.ones((1, 2), dtype=np.bool_)
    frame = np.array([[[7], [9]]], dtype=np.uint8)
    assert lossless.encode(frame, kept) == bytes((lossless.STORED, 7, 9))
