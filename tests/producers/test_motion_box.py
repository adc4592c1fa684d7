from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from producers.gate.motion import MotionGate, MotionSettings
from producers.gate.moving import largest_box
from schemas.messages.moving import Box

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320


def scene(seed: int, x: int | None = None, light: int = 0) -> Picture:
    """A place with a sensor's noise, and a person from column `x` on."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    grey = 90 + 40 * np.sin(rows / 17) + 30 * np.cos(columns / 23) + light
    grey = grey + 3 * np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH))
    if x is not None:
        grey[100:180, x : x + 40] = 250
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def found(pictures: list[Picture], step_ms: int = 500) -> list[Box | None]:
    gate, boxes = MotionGate(MotionSettings()), []
    for number, picture in enumerate(pictures):
        gate.passes(picture, step_ms * number)
        boxes.append(gate.box)
    return boxes


def test_the_box_holds_the_one_who_walks() -> None:
    boxes = found([scene(0), scene(1), *(scene(2 + n, 40 + 50 * n) for n in range(5))])
    assert boxes[:2] == [None, None]
    for n, box in enumerate(boxes[2:]):
        assert box is not None
        x = 40 + 50 * n
        assert box.top <= 100 < 180 <= box.bottom
        assert box.left <= x < x + 40 <= box.right
        assert box.right - box.left <= 40 + 3 * 8


def test_a_place_that_was_left_does_not_move() -> None:
    """The background holds somebody who stood there from the first picture on."""
    boxes = found([scene(n, 100) for n in range(4)] + [scene(n, None) for n in range(4, 9)])
    assert boxes[6:] == [None] * 3


def test_a_change_of_the_light_does_not_move() -> None:
    assert found([scene(n, light=10 * (n % 2)) for n in range(8)]) == [None] * 8


def test_fast_cameras_compare_pictures_that_are_apart_in_time() -> None:
    """Two columns a picture are too few to see from one picture to the next."""
    slow = found([scene(0)] * 10 + [scene(0, 40 + 2 * n) for n in range(40)], step_ms=40)
    assert all(slow[20:])


def test_another_size_and_a_clock_that_is_set_back_start_again() -> None:
    gate = MotionGate(MotionSettings())
    gate.passes(scene(0), 10_000)
    gate.passes(scene(1, 100)[:120, :120], 10_500)
    assert gate.box is None
    gate.passes(scene(2)[:120, :120], 1_000)
    assert gate.box is None


def test_the_largest_group_counts_and_one_block_of_space_does_not_part_it() -> None:
    blocks = np.zeros((12, 20), np.bool_)
    blocks[2:5, 3] = blocks[2:5, 5] = True
    blocks[9, 12:17] = True
    assert largest_box(blocks) == Box(2, 5, 3, 6)
    assert largest_box(np.zeros((3, 3), np.bool_)) is None
