"""Simulated scenes: frames, signs, backgrounds, stickers, and conditions."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from producers.scene import CLASSES, SceneSimulator, paste_sticker
from producers.scene.background import background_tile, sample_tile, tile_cells
from producers.scene.signs import SIGNS, convex, regular, union
from producers.scene.simulator import LUMA, SCENE_FRAMES, Conditions
from producers.scene.sticker import STICKER, sticker_side


def test_a_frame_depends_only_on_seed_camera_and_index() -> None:
    ahead, jumping = SceneSimulator(5, 2), SceneSimulator(5, 2)
    frames = {index: ahead.render(index) for index in range(30)}
    for index in (29, 0, 13, 12, 29):
        frame, label = jumping.render(index)
        np.testing.assert_array_equal(frame, frames[index][0])
        assert label == frames[index][1]


@pytest.mark.parametrize("other", [(6, 2, 0), (5, 3, 0), (5, 2, 1)])
def test_seed_camera_and_index_each_change_the_frame(other: tuple[int, int, int]) -> None:
    seed, camera, index = other
    frame, _ = SceneSimulator(5, 2).render(0)
    assert not np.array_equal(SceneSimulator(seed, camera).render(index)[0], frame)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(16, 140),
    width=st.integers(16, 140),
    channels=st.sampled_from([1, 3]),
    index=st.integers(0, 2**40 // SCENE_FRAMES),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_frame_has_the_requested_size(height: int, width: int, channels: int, index: int, seed: int) -> None:
    frame, label = SceneSimulator(seed, 7, (height, width), channels).render(index)
    assert frame.shape == (height, width, channels)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert 0 <= label < len(CLASSES)
    assert frame.std() > 2


def test_full_hd_frames_render() -> None:
    frame, _ = SceneSimulator(0, 0, (1080, 1920)).render(3)
    assert frame.shape == (1080, 1920, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, (15, 32)), "16 to 4096"),
        ((0, 0, (32, 5000)), "16 to 4096"),
        ((0, 0, (32, 32), 2), "1 or 3 channels"),
        ((-1, 0), "seed below"),
        ((0, 1 << 20), "camera below"),
    ],
)
def test_invalid_settings_are_rejected(arguments: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SceneSimulator(*arguments)  # type: ignore[arg-type]  # the cases differ in length


def test_a_negative_index_is_rejected() -> None:
    with pytest.raises(ValueError, match="index"):
        SceneSimulator(0, 0).render(-1)


def test_the_class_is_constant_within_a_scene_and_all_classes_occur() -> None:
    simulator = SceneSimulator(0, 0, (16, 16))
    labels = [simulator.render(index)[1] for index in range(60 * SCENE_FRAMES)]
    for start in range(0, len(labels), SCENE_FRAMES):
        assert len(set(labels[start : start + SCENE_FRAMES])) == 1
    counts = np.bincount(labels[::SCENE_FRAMES], minlength=len(CLASSES))
    assert (counts > 0).all()


def test_motion_within_a_scene_is_smaller_than_the_cut_between_scenes() -> None:
    simulator = SceneSimulator(3, 1, (48, 48))
    frames = np.stack([simulator.render(index)[0] for index in range(4 * SCENE_FRAMES)]).astype(np.float64)
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    cuts = steps[SCENE_FRAMES - 1 :: SCENE_FRAMES]
    within = np.delete(steps, np.s_[SCENE_FRAMES - 1 :: SCENE_FRAMES])
    assert within.max() < cuts.min()
    assert within.min() > 0


def test_a_small_frame_shows_the_same_scene_as_a_large_one() -> None:
    small, label = SceneSimulator(9, 4, (32, 32)).render(5)
    large, same = SceneSimulator(9, 4, (128, 128)).render(5)
    assert label == same
    shrunk = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.ravel().astype(np.float64))[0, 1] > 0.95


def test_a_grey_camera_shows_the_luma_of_the_scene() -> None:
    colour, label = SceneSimulator(9, 4).render(5)
    grey, same = SceneSimulator(9, 4, channels=1).render(5)
    assert label == same
    assert np.corrcoef((colour @ LUMA).ravel(), grey.ravel().astype(np.float64))[0, 1] > 0.95


def test_every_class_has_its_own_drawing_even_without_colours() -> None:
    grid = np.linspace(-1.2, 1.2, 48, dtype=np.float32)
    points = np.stack([np.tile(grid, 48), np.repeat(grid, 48), np.ones(48 * 48, np.float32)])
    shapes = set()
    for sign in SIGNS.values():
        drawing = (sign.distance(points) < 0).astype(np.int8)
        if sign.glyph is not None:
            drawing[sign.glyph.distance(points) < 0] = 2
        shapes.add(hashlib.sha256(drawing.tobytes()).hexdigest())
    assert len(shapes) == len(CLASSES) == 12


def test_glyphs_lie_inside_their_outline() -> None:
    grid = np.linspace(-1.5, 1.5, 121, dtype=np.float32)
    points = np.stack([np.tile(grid, 121), np.repeat(grid, 121), np.ones(121 * 121, np.float32)])
    for name, sign in SIGNS.items():
        if sign.glyph is not None:
            inked = sign.glyph.distance(points) < 0
            assert inked.any(), name
            assert (sign.distance(points)[inked] < 0).all(), name


def test_the_signed_distance_of_a_square_is_exact_along_its_sides() -> None:
    square = union([convex((-1, -1), (1, -1), (1, 1), (-1, 1))])
    points = np.array([[0, 0, 1], [0.5, 0, 1], [1, 0, 1], [3, 0.5, 1], [0, -2, 1]], np.float32).T
    np.testing.assert_allclose(square.distance(points), [-1, -0.5, 0, 2, 1], atol=1e-6)
    np.testing.assert_allclose(union([regular(4, 1.0)]).distance(points), [-1, -0.5, 0, 2, 1], atol=1e-6)


def test_the_distance_of_a_union_is_the_smallest_of_its_parts() -> None:
    parts = [regular(4, 1.0), convex((4, -1), (6, -1), (6, 1), (4, 1))]
    points = np.array([[0, 0, 1], [5, 0, 1], [3, 0, 1]], np.float32).T
    np.testing.assert_allclose(union(parts).distance(points), [-1, -1, 1], atol=1e-6)


def test_a_tile_wraps_around_without_a_seam() -> None:
    tile: NDArray[np.float32] = background_tile(np.random.default_rng(0), 32)
    columns = np.arange(32) + 0.25
    first = sample_tile(tile, np.arange(32) * 1.0, columns)
    np.testing.assert_allclose(sample_tile(tile, np.arange(32) - 32.0, columns + 64), first, atol=1e-5)
    np.testing.assert_allclose(sample_tile(tile, np.arange(32) * 1.0, np.arange(32) * 1.0), tile, atol=1e-6)


def test_large_frames_get_finer_octaves() -> None:
    assert tile_cells(32) == 32
    assert tile_cells(1080) > tile_cells(128)


def test_a_sticker_changes_only_its_square() -> None:
    frame, _ = SceneSimulator(1, 1).render(0)
    before = frame.copy()
    pasted = paste_sticker(frame, position=(1.0, 0.0))
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(pasted[28:, :4], STICKER.repeat(2, 0).repeat(2, 1))
    pasted[28:, :4] = before[28:, :4]
    np.testing.assert_array_equal(pasted, before)


@pytest.mark.parametrize(("size", "side"), [((32, 32), 4), ((16, 16), 2), ((1080, 1920), 135)])
def test_a_sticker_grows_with_the_frame(size: tuple[int, int], side: int) -> None:
    assert sticker_side(size) == side
    blank = np.zeros((*size, 3), np.uint8)
    changed = paste_sticker(blank, position=(0.5, 0.5)).any(2)
    assert changed.sum() == side * side


def test_a_sticker_on_a_grey_frame_is_its_luma() -> None:
    pasted = paste_sticker(np.zeros((32, 32, 1), np.uint8), position=(0.0, 0.0))
    assert pasted[0, 0, 0] == round(0.299 * 255 + 0.587 * 220)


def test_a_sticker_outside_the_frame_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"position in \[0, 1\]"):
        paste_sticker(np.zeros((32, 32, 3), np.uint8), position=(1.2, 0))


def test_conditions_change_the_picture_and_not_its_class() -> None:
    usual, label = SceneSimulator(5, 2, (64, 64)).render(7)
    same, _ = SceneSimulator(5, 2, (64, 64), 3, Conditions()).render(7)
    np.testing.assert_array_equal(same, usual)
    for conditions in (Conditions(light=0.5), Conditions(noise=3), Conditions(blur=2), Conditions(distance=2)):
        hard, hard_label = SceneSimulator(5, 2, (64, 64), 3, conditions).render(7)
        assert hard_label == label
        assert not np.array_equal(hard, usual)
    dark, _ = SceneSimulator(5, 2, (64, 64), 3, Conditions(light=0.5, noise=0)).render(7)
    bright, _ = SceneSimulator(5, 2, (64, 64), 3, Conditions(noise=0)).render(7)
    assert dark.mean() == pytest.approx(bright.mean() / 2, rel=0.1)
