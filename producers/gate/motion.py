"""The motion gate: block means compared with their running average, corrected for changes of light.

The running average as background model is that of Piccardi, "Background subtraction techniques: a review" (SMC 2004),
section II-A. The mean of a block reduces the sensor's noise by the square root of its pixels. A change of the whole
picture (a cloud, the camera's exposure) is estimated by the median of all blocks' differences, and subtracted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from producers.gate.moving import Blocks, Means, MovingBlocks, changed, largest_box
from schemas.messages.moving import Box
from schemas.pixels.packing import Picture
from schemas.settings import SettingsTable

BLOCKS: Final = 40
"""Maximum number of blocks along the longer side of a picture."""
_SAMPLES: Final = 8
"""Maximum number of sampled pixels along each side of a block: enough against noise at any picture size."""
_LEARNS_S: Final = 20.0
"""Time constant of the background: an object that stays longer becomes part of it."""


class MotionSettings(SettingsTable):
    """Thresholds of motion, and the time between heartbeats."""

    levels: float = Field(default=8.0, gt=0, le=255, allow_inf_nan=False)
    """Threshold of a block: it has changed if its mean differs from the background by more grey levels of 255."""
    share: float = Field(default=0.005, ge=0, lt=1, allow_inf_nan=False)
    """Threshold of a frame: it has motion if more than this share of the blocks has changed."""
    hold_s: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    """Seconds for which frames are still sent after the last motion."""
    heartbeat_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Maximum seconds between two frames, also without motion."""


class MotionGate:
    """The filter of one camera's frames, in order: `passes` decides whether a frame is sent."""

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._background: Means | None = None
        self._seen_ms = 0
        self._moved_ms: int | None = None
        self._sent_ms: int | None = None
        self._moving = MovingBlocks()
        self.box: Box | None = None
        """The motion box of the last picture, in pixels; None without motion."""

    def passes(self, picture: Picture, now_ms: int) -> bool:
        """Return whether to send a picture (H, W, C) captured at `now_ms`, Unix time. The first picture is sent."""
        means = block_means(picture)
        background = self._background
        if background is None or background.shape != means.shape:
            differs = np.zeros(means.shape, np.bool_)
            self._background = means
            moved = True
        else:
            differs = changed(means, background, self._settings.levels)
            moved = bool(np.count_nonzero(differs) / differs.size > self._settings.share)
            kept = np.exp(-max(0, now_ms - self._seen_ms) / (1000 * _LEARNS_S)).astype(np.float32)
            self._background = kept * background + (1 - kept) * means
        self.box = self._box(picture, self._moving.next(means, differs, self._settings.levels, now_ms))
        self._seen_ms = now_ms
        if moved:
            self._moved_ms = now_ms
        sends = (
            moved
            or _within(self._moved_ms, now_ms, self._settings.hold_s)
            or not _within(self._sent_ms, now_ms, self._settings.heartbeat_s)
        )
        if sends:
            self._sent_ms = now_ms
        return sends

    def _box(self, picture: Picture, blocks: Blocks) -> Box | None:
        if np.count_nonzero(blocks) <= self._settings.share * blocks.size:
            return None
        box, side = largest_box(blocks), block_side(picture)
        if box is None:
            return None
        top, bottom, left, right = (side * each for each in box)
        height, width, _ = picture.shape
        return Box(top, min(bottom, height), left, min(right, width))


def block_means(picture: Picture) -> Means:
    """Return the mean of each block of a picture (H, W, C). In colour, the channel is green, which is close to luma.

    Blocks are square. If pixels remain at the right or lower edge, the last blocks end there and overlap others.
    """
    height, width, channels = picture.shape
    side = block_side(picture)
    plane = picture[:, :, min(1, channels - 1)]

    def rows_of(lines: NDArray[np.uint8]) -> Means:
        found = _whole_blocks(lines, side)
        return np.hstack([found, _whole_blocks(lines[:, -side:], side)]) if width % side else found

    found = rows_of(plane)
    return np.vstack([found, rows_of(plane[-side:])]) if height % side else found


def _whole_blocks(plane: NDArray[np.uint8], side: int) -> Means:
    """Return the means of the blocks of a plane (H, W), without what remains at the right and lower edge."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    step = max(1, side // _SAMPLES)
    blocks = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)[:, ::step, :, ::step]
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def block_side(picture: Picture) -> int:
    """Return the side of a block of a picture (H, W, C), in pixels."""
    height, width, _ = picture.shape
    side: int = min(max(1, -(-max(height, width) // BLOCKS)), height, width)
    return side


def _within(then_ms: int | None, now_ms: int, seconds: float) -> bool:
    return then_ms is not None and 0 <= now_ms - then_ms < 1000 * seconds
