"""Whether anything moves: block means against a running average of them, changes of the light left out.

The running average as background model is that of Piccardi, "Background subtraction techniques: a review" (SMC 2004),
section II-A. Averaging over blocks takes the sensor's noise down by the root of their pixels. A change that is the same
everywhere (a cloud, the camera's exposure) is the median of all blocks' differences, and is taken off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from pydantic import Field

from producers.gate.moving import Means, MovingBlocks, changed, largest_box
from schemas.messages.moving import Box
from schemas.pixels.packing import Picture
from schemas.settings import SettingsTable

BLOCKS: Final = 40
"""Blocks along the longer side of a picture, at most."""
_SAMPLES: Final = 8
"""Pixels along each side of a block that are looked at, at most: enough against noise, whatever the picture's size."""
_LEARNS_S: Final = 20.0
"""Time constant of the background: what stays longer than that belongs to it."""


class MotionSettings(SettingsTable):
    """When a frame counts as one in which something moves, and what is sent besides."""

    levels: float = Field(default=8.0, gt=0, le=255, allow_inf_nan=False)
    """A block has changed when its mean differs from the background by more than that, in grey levels of 255."""
    share: float = Field(default=0.005, ge=0, lt=1, allow_inf_nan=False)
    """Something moves when more than this share of the blocks has changed."""
    hold_s: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    """Seconds after the last motion in which frames are still sent."""
    heartbeat_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Maximum seconds between two frames, also without motion."""


class MotionGate:
    """Decides of each frame of one camera, in order, whether it is sent."""

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._background: Means | None = None
        self._seen_ms = 0
        self._moved_ms: int | None = None
        self._sent_ms: int | None = None
        self._moving = MovingBlocks()
        self.box: Box | None = None
        """The box of what moves in the last picture, in pixels; None if nothing does."""

    def passes(self, picture: Picture, now_ms: int) -> bool:
        """Whether to send a picture (H, W, C) captured at `now_ms`, Unix time. The first one of all is sent."""
        means = block_means(picture)
        background = self._background
        self.box = self._box(picture, means, now_ms)
        if background is None or background.shape != means.shape:
            self._background = means
            moved = True
        else:
            moved = changed_share(means, background, self._settings.levels) > self._settings.share
            kept = np.exp(-max(0, now_ms - self._seen_ms) / (1000 * _LEARNS_S)).astype(np.float32)
            self._background = kept * background + (1 - kept) * means
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

    def _box(self, picture: Picture, means: Means, now_ms: int) -> Box | None:
        background = self._background
        if background is None or background.shape != means.shape:
            background = means
        blocks = self._moving.next(means, background, self._settings.levels, now_ms)
        if np.count_nonzero(blocks) <= self._settings.share * blocks.size:
            return None
        box, side = largest_box(blocks), block_side(picture)
        return None if box is None else Box(*(side * each for each in box))


def block_means(picture: Picture) -> Means:
    """The mean of each block of a picture (H, W, C), of its second channel where it has colours: green, nearly luma.

    Blocks are square; what is left at the right and lower edge by a side that is no multiple belongs to no block.
    """
    height, width, channels = picture.shape
    side = block_side(picture)
    step = max(1, side // _SAMPLES)
    rows, columns = height // side, width // side
    plane = picture[: rows * side, : columns * side, min(1, channels - 1)]
    blocks = plane.reshape(rows, side, columns, side)[:, ::step, :, ::step]
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def changed_share(means: Means, background: Means, levels: float) -> float:
    """The share of the blocks that differ from the background by more than `levels`, the light's change taken off."""
    return float(np.count_nonzero(changed(means, background, levels))) / means.size


def block_side(picture: Picture) -> int:
    """Return the side of a block of a picture (H, W, C), in pixels."""
    height, width, _ = picture.shape
    side: int = min(max(1, -(-max(height, width) // BLOCKS)), height, width)
    return side


def _within(then_ms: int | None, now_ms: int, seconds: float) -> bool:
    return then_ms is not None and 0 <= now_ms - then_ms < 1000 * seconds
