"""The fill of dropped pixels: computed only from kept pixels, identically on every machine."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.pixels import fill as fill_module
from schemas.pixels.fill import Fill
from schemas.pixels.masks import Mask, kept_mask
from schemas.pixels.planes import Colour, Planes, chroma_shape, luma_of, rgb_weights, to_picture

KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CameraId("site/door"))
SIZES = [(64, 64), (72, 101), (67, 128), (63, 72)]


def mask(height: int, width: int, dropped: int, seq: int = 0) -> Mask:
    return kept_mask(KEY, 1, seq, height, width, dropped)


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def planes(height: int, width: int, seed: int) -> Planes:
    small = chroma_shape(height, width)
    return Planes(noise((height, width), seed), noise(small, seed + 1), noise(small, seed + 2), Colour.BT709_LIMITED)


def cells_kept(kept: Mask) -> Mask:
    """Return whether any pixel of a chroma sample is kept, computed pixel by pixel."""
    found = np.zeros(chroma_shape(*kept.shape), dtype=np.bool_)
    for row, column in np.argwhere(kept):
        found[row // 2, column // 2] = True
    return found


def same(first: Planes, second: Planes) -> bool:
    return [_bytes(plane) for plane in first[:3]] == [_bytes(plane) for plane in second[:3]]


def _bytes(plane: NDArray[np.uint8] | None) -> bytes:
    return b"" if plane is None else plane.tobytes()


cases: dict[str, Any] = {
    "size": st.sampled_from(SIZES),
    "dropped": st.sampled_from([0, 6, 16, 32, 48, 56]),
    "seed": st.integers(0, 2**16),
}


@settings(deadline=None, max_examples=30)
@given(**cases)
def test_pictures_that_differ_only_in_dropped_pixels_have_equal_planes(
    size: tuple[int, int], dropped: int, seed: int
) -> None:
    kept = mask(*size, dropped, seed)
    fill = Fill(kept)
    for channels in (1, 3):
        picture, other = (noise((*size, channels), each) for each in (seed, seed + 1))
        other[kept] = picture[kept]
        assert same(fill.picture(picture), fill.picture(other))


@settings(deadline=None, max_examples=30)
@given(**cases)
def test_planes_that_differ_only_in_dropped_samples_have_equal_fills(
    size: tuple[int, int], dropped: int, seed: int
) -> None:
    kept = mask(*size, dropped, seed)
    fill, cells = Fill(kept), cells_kept(kept)
    one, other = planes(*size, seed), planes(*size, seed + 7)
    assert one.blue is not None
    assert one.red is not None
    assert other.blue is not None
    assert other.red is not None
    other.luma[kept] = one.luma[kept]
    other.blue[cells], other.red[cells] = one.blue[cells], one.red[cells]
    filled = fill.planes(one)
    assert same(filled, fill.planes(other))
    assert np.array_equal(filled.luma[kept], one.luma[kept])
    assert filled.blue is not None
    assert filled.red is not None
    assert np.array_equal(filled.blue[cells], one.blue[cells])
    assert np.array_equal(filled.red[cells], one.red[cells])
    assert filled.colour is Colour.BT709_LIMITED
    grey = Planes(one.luma, None, None, Colour.BT709_LIMITED)
    assert same(fill.planes(grey), Planes(filled.luma, None, None))
    assert fill.planes(grey).colour is Colour.BT709_LIMITED


def test_a_hole_is_the_rounded_mean_of_its_four_neighbours() -> None:
    kept = np.ones((64, 64), dtype=np.bool_)
    kept[10, 20] = False
    plane = noise((64, 64), 3)
    filled = Fill(kept).planes(Planes(plane, None, None)).luma
    around = [int(plane[at]) for at in ((9, 20), (11, 20), (10, 19), (10, 21))]
    assert filled[10, 20] == (sum(around) + 2) // 4
    filled[10, 20] = plane[10, 20]
    assert np.array_equal(filled, plane)


@pytest.mark.parametrize("dropped", [16, 48, 56])
def test_holes_are_filled_from_the_nearest_kept_pixels(dropped: int) -> None:
    kept = mask(64, 72, dropped)
    plane = noise((64, 72), 5)
    filled = Fill(kept).planes(Planes(plane, None, None)).luma
    known = np.argwhere(kept)
    values = plane[kept].astype(int)
    for row, column in np.argwhere(~kept)[::37]:
        away = known - (row, column)
        away = away[:, 0] ** 2 + away[:, 1] ** 2
        order = np.sort(away)
        near = values[away <= order[3]]
        # Several sets of four may be nearest, at equal distance: the result lies between their values.
        assert near.min() <= filled[row, column] <= near.max()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from((0.2, 0.6, 0.9, 0.98)))
def test_the_sources_of_a_hole_are_the_first_four_kept_neighbours_in_order(seed: int, share: float) -> None:
    kept = np.random.default_rng(seed).random((19, 23)) >= share
    kept[7, 9] = True
    holes = np.flatnonzero(~kept)
    for hole, found in zip(holes, fill_module._sources(kept, holes).T, strict=True):
        row, column = divmod(int(hole), 23)
        near = [(row + down, column + right) for down, right in fill_module._OFFSETS]
        first = [23 * y + x for y, x in near if 0 <= y < 19 and 0 <= x < 23 and kept[y, x]][:4]
        if not first:
            known = np.flatnonzero(kept)
            first = [int(known[known < hole][-1] if (known < hole).any() else known[0])]
        assert [first[rank % len(first)] for rank in range(4)] == found.tolist()


@pytest.mark.parametrize("rows", [1, 7, 31, 100])
def test_strips_of_any_height_give_the_same_fill(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    kept = mask(72, 101, 6)
    picture = noise((72, 101, 3), 9)
    at_once = Fill(kept).picture(picture)
    monkeypatch.setattr(fill_module, "_STRIP_PIXELS", 101 * rows + 50)
    assert same(Fill(kept).picture(picture), at_once)


def test_a_mask_that_keeps_nothing_is_rejected() -> None:
    with pytest.raises(ValueError, match="keeps a pixel"):
        Fill(np.zeros((8, 8), dtype=np.bool_))


def test_a_corner_far_from_kept_pixels_is_filled() -> None:
    kept = np.zeros((40, 40), dtype=np.bool_)
    kept[0, 0] = True
    plane = noise((40, 40), 1)
    assert (Fill(kept).planes(Planes(plane, None, None)).luma == plane[0, 0]).all()


def test_the_chroma_of_a_sample_is_the_mean_of_its_kept_pixels() -> None:
    kept = np.ones((64, 64), dtype=np.bool_)
    kept[0, 0] = kept[1, 1] = False
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:2, :2] = (255, 0, 0)
    picture[0, 1], picture[1, 0] = (0, 0, 255), (0, 0, 255)
    found = Fill(kept).picture(picture)
    assert found.blue is not None
    assert found.red is not None
    assert (int(found.blue[0, 0]), int(found.red[0, 0])) == (255, 107)


@pytest.mark.parametrize("colour", list(Colour))
def test_grey_planes_are_grey_pixels(colour: Colour) -> None:
    neutral = np.full((4, 4), 128, np.uint8)
    luma = np.linspace(16, 235, 64).astype(np.uint8).reshape(8, 8)
    picture = to_picture(Planes(luma, neutral, neutral, colour))
    assert (picture == picture[..., :1]).all()
    limited = colour in (Colour.BT601_LIMITED, Colour.BT709_LIMITED)
    assert (picture[0, 0, 0], picture[-1, -1, 0]) == ((0, 255) if limited else (16, 235))


@pytest.mark.parametrize("colour", list(Colour))
@pytest.mark.parametrize("shape", [(64, 96), (65, 97), (1, 3)])
def test_rgb_equals_the_matrix_of_the_standard(colour: Colour, shape: tuple[int, int]) -> None:
    height, width = shape
    chroma = chroma_shape(height, width)
    planes = Planes(noise(shape, 5), noise(chroma, 6), noise(chroma, 7), colour)
    assert planes.blue is not None
    assert planes.red is not None
    black, y, rv, gu, gv, bu = rgb_weights(colour)
    luma = y * (planes.luma.astype(float) - black)
    u, v = (
        (plane.astype(float) - 128).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        for plane in (planes.blue, planes.red)
    )
    expected = np.stack([luma + rv * v, luma + gu * u + gv * v, luma + bu * u], axis=2).clip(0, 255)
    assert np.abs(to_picture(planes) - expected).max() < 0.6


def test_rgb_survives_full_range_planes() -> None:
    # Pixels are equal in each 2×2, because chroma is shared there.
    picture = noise((32, 32, 3), 2).repeat(2, axis=0).repeat(2, axis=1)
    back = to_picture(Fill(np.ones((64, 64), dtype=np.bool_)).picture(picture))
    assert np.abs(back.astype(int) - picture).max() <= 3


def test_luma_equals_its_formula() -> None:
    picture = noise((9, 11, 3), 4)
    red, green, blue = (picture[..., each].astype(int) for each in range(3))
    assert np.array_equal(luma_of(picture), (77 * red + 150 * green + 29 * blue + 128) // 256)


def test_the_fill_is_the_same_on_every_machine() -> None:
    picture = ((np.arange(72 * 101 * 3, dtype=np.int64) ** 2 * 7919 >> 7) & 255).astype(np.uint8).reshape(72, 101, 3)
    filled = Fill(mask(72, 101, 40)).picture(picture)
    assert [crc32(plane.tobytes()) for plane in filled[:3] if plane is not None] == [4249596470, 777656940, 4127193811]
