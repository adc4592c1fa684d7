"""The box around the largest moving group of blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from producers.gate.motion import MotionGate, MotionSettings
from producers.gate.moving import largest_box
from schemas.messages.moving import Box

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320


def scene(seed: int, x: int | None = None, light: int = 0) -> Picture:
    """Return a picture of one place with sensor noise, and a person from column `x` on."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    grey = 90 + 40 * np.sin(rows / 17) + 30 * np.cos(columns / 23) + light
    grey = grey + 3 * np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH))
    if x is not None:
        grey[100:180, x : x + 40] = 250
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def boxes_of(pictures: list[Picture], step_ms: int = 500) -> list[Box | None]:
    gate, boxes = MotionGate(MotionSettings()), []
    for number, picture in enumerate(pictures):
        gate.passes(picture, step_ms * number)
        boxes.append(gate.box)
    return boxes


def test_the_box_contains_a_walking_person() -> None:
    boxes = boxes_of([scene(0), scene(1), *(scene(2 + n, 40 + 50 * n) for n in range(5))])
    assert boxes[:2] == [None, None]
    for n, box in enumerate(boxes[2:]):
        assert box is not None
        x = 40 + 50 * n
        assert box.top <= 100 < 180 <= box.bottom
        assert box.left <= x < x + 40 <= box.right
        assert box.right - box.left <= 40 + 3 * 8


def test_the_place_that_a_person_has_left_is_no_motion() -> None:
    """Show a person in the background's first pictures only."""
    boxes = boxes_of([scene(n, 100) for n in range(4)] + [scene(n, None) for n in range(4, 9)])
    assert boxes[6:] == [None] * 3


def test_a_change_of_light_is_no_motion() -> None:
    assert boxes_of([scene(n, light=10 * (n % 2)) for n in range(8)]) == [None] * 8


def test_pictures_of_a_fast_camera_are_compared_over_a_longer_interval() -> None:
    """Move by two columns a picture, too few to detect between consecutive pictures."""
    slow = boxes_of([scene(0)] * 10 + [scene(0, 40 + 2 * n) for n in range(40)], step_ms=40)
    assert all(slow[20:])


def test_another_size_or_a_clock_set_back_restarts_the_comparison() -> None:
    gate = MotionGate(MotionSettings())
    gate.passes(scene(0), 10_000)
    gate.passes(scene(1, 100)[:120, :120], 10_500)
    assert gate.box is None
    gate.passes(scene(2)[:120, :120], 1_000)
    assert gate.box is None


def test_the_largest_group_counts_and_a_gap_of_one_block_does_not_split_it() -> None:
    blocks = np.zeros((12, 20), np.bool_)
    blocks[2:5, 3] = blocks[2:5, 5] = True
    blocks[9, 12:17] = True
    assert largest_box(blocks) == Box(2, 5, 3, 6)
    assert largest_box(np.zeros((3, 3), np.bool_)) is None
