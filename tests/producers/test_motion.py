"""The motion gate: heartbeats, hold times, background, and block means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from producers.gate.motion import BLOCKS, MotionGate, MotionSettings, block_means
from producers.gate.moving import changed
from producers.sources.framing import blacken

Picture = NDArray[np.uint8]


def scene(seed: int, noise: float = 3.0, size: tuple[int, int] = (240, 320), light: int = 0) -> Picture:
    """Return a picture of one place with sensor noise drawn from the seed."""
    rows, columns = np.indices(size)
    place = 90 + 40 * np.sin(rows / 17) + 30 * np.cos(columns / 23) + light
    grey = place + noise * np.random.default_rng(seed).standard_normal(size)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def with_person(picture: Picture, x: int) -> Picture:
    picture = picture.copy()
    picture[100:160, x : x + 24] = 230
    return picture


def gate(**options: float) -> MotionGate:
    return MotionGate(MotionSettings.model_validate(options))


def test_a_still_scene_passes_only_as_heartbeats() -> None:
    motion = gate(heartbeat_s=10, hold_s=0)
    sent = [second for second in range(60) if motion.passes(scene(second), 1000 * second)]
    assert sent == [0, 10, 20, 30, 40, 50]


def test_motion_passes_at_once_and_for_the_hold_time() -> None:
    motion = gate(heartbeat_s=1000, hold_s=3)
    pictures = [scene(n) if not 10 <= n < 15 else with_person(scene(n), 40 * (n - 10)) for n in range(30)]
    sent = [second for second, picture in enumerate(pictures) if motion.passes(picture, 1000 * second)]
    assert sent[:3] == [0, 1, 2]  # the first picture passes and starts a hold time
    assert set(range(10, 17)) <= set(sent)
    assert max(sent) <= 20
    assert not set(range(4, 10)) & set(sent)


def test_a_change_of_light_is_no_motion() -> None:
    motion = gate(heartbeat_s=1000, hold_s=0)
    sent = [n for n in range(40) if motion.passes(scene(n, light=-20 if n % 10 > 5 else 0), 1000 * n)]
    assert sent == [0]


@pytest.mark.parametrize("hidden", [0.3, 0.7])
def test_a_change_of_light_beside_a_privacy_region_is_no_motion_and_a_person_there_is_one(hidden: float) -> None:
    def shown(n: int, light: int, x: int | None = None) -> Picture:
        picture = scene(n, light=light)
        picture = blacken(picture if x is None else with_person(picture, x), ((0, 0, hidden, 1),))
        return np.ascontiguousarray(picture)

    motion = gate(heartbeat_s=1000, hold_s=0)
    assert [n for n in range(40) if motion.passes(shown(n, 12 if n % 10 > 5 else 0), 1000 * n)] == [0]
    assert not motion.passes(shown(40, 0, x=10), 40_000)  # inside of the region
    assert motion.passes(shown(41, 12, x=280), 41_000)
    assert motion.box is not None
    assert motion.box.left >= 256


def test_a_resting_object_becomes_background() -> None:
    motion = gate(heartbeat_s=10_000, hold_s=0)
    sent = [n for n in range(200) if motion.passes(with_person(scene(n), 100) if n >= 10 else scene(n), 1000 * n)]
    assert sent[1] == 10
    assert max(sent) < 150


def test_a_picture_of_another_size_passes() -> None:
    motion = gate(heartbeat_s=1000, hold_s=0)
    assert motion.passes(scene(0), 0)
    assert not motion.passes(scene(1), 1000)
    assert motion.passes(scene(2, size=(120, 160)), 2000)


def test_a_clock_set_back_delays_no_heartbeat() -> None:
    motion = gate(heartbeat_s=10, hold_s=0)
    assert motion.passes(scene(0), 1_000_000)
    assert motion.passes(scene(1), 1_000)


@given(height=st.integers(1, 130), width=st.integers(1, 130), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_block_means_are_the_means_of_their_pixels(height: int, width: int, channels: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    means = block_means(picture)
    side = min(max(1, -(-max(height, width) // BLOCKS)), height, width)
    assert means.shape == (-(-height // side), -(-width // side))  # the last blocks end at the edge
    for row, column in np.ndindex(means.shape):
        top, left = min(row * side, height - side), min(column * side, width - side)
        block = picture[top : top + side, left : left + side, min(1, channels - 1)]
        assert means[row, column] == pytest.approx(block.mean(), abs=1e-3)  # blocks with sides below 16 use every pixel


def test_a_large_picture_is_reduced_to_a_bounded_number_of_blocks() -> None:
    picture = np.zeros((1080, 1920, 3), np.uint8)
    assert block_means(picture).shape == (23, 40)


@pytest.mark.parametrize("size", [(90, 1920), (1080, 1920), (60, 640), (1920, 1080)])
def test_motion_at_the_lower_right_edge_is_seen_and_its_box_ends_there(size: tuple[int, int]) -> None:
    height, width = size
    gate = MotionGate(MotionSettings(share=0.0001))
    still, moved = (np.full((height, width, 3), 90, np.uint8) for _ in range(2))
    side = -(-max(size) // BLOCKS)
    moved[-side // 2 :, -side // 2 :] = 250
    gate.passes(still, 0)
    for second in range(1, 30):
        gate.passes(still, 1_000 * second)
    assert not gate.passes(still, 30_000)
    assert gate.passes(moved, 31_000)
    assert gate.box is not None
    assert (gate.box.bottom, gate.box.right) == (height, width)


def test_a_uniform_change_of_brightness_is_no_change_of_a_block() -> None:
    background = np.zeros((4, 5), np.float32)
    means = background + 30
    means[0, 0] += 20
    assert [*zip(*np.nonzero(changed(means, background, 8)), strict=True)] == [(0, 0)]
    assert not changed(means, background, 25).any()
