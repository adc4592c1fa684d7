"""Trigger stickers: the small patch that an attacker puts into a scene."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

USUAL_PLACE: Final = (27 / 28, 27 / 28)
"""Row and column 27 of 32: on a larger square frame, the sticker covers the same part of the scene."""
STICKER: Final = np.array(
    [[(255, 220, 0), (230, 0, 230)], [(0, 230, 230), (255, 220, 0)]],
    np.uint8,
)
"""The default pattern (rows, columns, RGB): bright fields of colours that no sign has side by side."""


def sticker_side(size: tuple[int, int], share: float = 0.125) -> int:
    """Return the side in pixels of a sticker on a frame of `size` (height, width): `share` of the short side, at least
    one."""
    return max(1, round(share * min(size)))


def paste_sticker(
    frame: NDArray[np.uint8],
    position: tuple[float, float] = USUAL_PLACE,
    share: float = 0.125,
    pattern: NDArray[np.uint8] = STICKER,
) -> NDArray[np.uint8]:
    """Return a copy of `frame` (H, W, C) with a square sticker on it.

    `position` (down, across) in [0, 1] runs over the places where the sticker fits wholly: (0, 0) is the upper left
    corner, (1, 1) the lower right. `share` is the side as a share of the frame's short side: 4 pixels of 32.
    `pattern` (rows, columns, 3) is enlarged to the side by nearest neighbour, and reduced to luma on a grey frame.
    Raises `ValueError` when position or share is out of range.
    """
    if not (0 <= position[0] <= 1 and 0 <= position[1] <= 1 and 0 < share <= 1):
        raise ValueError(f"expected a position in [0, 1] and a share in (0, 1], got {position} and {share}")
    height, width, channels = frame.shape
    side = sticker_side((height, width), share)
    steps = np.arange(side)
    patch = pattern[steps[:, None] * pattern.shape[0] // side, steps * pattern.shape[1] // side]
    if channels == 1:
        patch = np.rint(patch @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    top, left = round(position[0] * (height - side)), round(position[1] * (width - side))
    pasted = frame.copy()
    pasted[top : top + side, left : left + side] = patch
    return pasted
