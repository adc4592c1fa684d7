"""The picture of an attacked lens: the frame plus ε times a generator's direction.

The direction is computed at the generator's own size and resampled to the frame's. The attacker knows the input of the
network and not the mask.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from producers.scene.simulator import LUMA
from producers.simulation.generator import Floats, Generator
from producers.sources.framing import convert_channels, resize
from schemas.pixels.packing import Picture

LEVELS: Final = 255
STRETCH: Final = 4.0
"""The gain of a direction that is resampled to another size, before it is clipped to ±1.

On the frame, a direction changes from one bound to the other over one pixel of the generator. Resampling to the
network's size averages that again. The gain brings it to its bound nearly everywhere, as the sign of a gradient through
the resampling would. Clipping still enforces the bound.
"""
_ROUNDING: Final = 1e-6
"""In binary, ε = 8/255 is slightly smaller; with this tolerance it still allows 8 grey levels."""


def attack(picture: Picture, generator: Generator, target: int, eps: float) -> Picture:
    """Return `picture` (H, W, C) uint8 attacked towards class `target`: no pixel differs by more than 255 `eps`."""
    changed = np.empty(picture.shape, np.uint8)
    # Plane by plane: in a large frame, stacking float32 planes would take longer than the other work.
    for channel, plane in enumerate(direction_of(picture, generator, target)):
        changed[..., channel] = add(picture[..., channel], stretched(plane, *picture.shape[:2]), eps)
    return changed


def direction_of(picture: Picture, generator: Generator, target: int) -> Floats:
    """Return the generator's direction for `picture` (H, W, C), with its channels: (C, h, w) in [−1, 1]."""
    wanted = generator.settings
    seen = convert_channels(resize(picture, (wanted.width, wanted.height)), wanted.channels)
    planes = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], np.float32) / np.float32(LEVELS)
    direction: Floats = generator.direction(planes, np.array([target], np.int64))[0]
    if picture.shape[2] == wanted.channels:
        return direction
    return np.tensordot(LUMA, direction, 1)[None] if wanted.channels == 3 else np.repeat(direction, 3, 0)


def stretched(plane: Floats, height: int, width: int) -> Floats:
    """Return a plane (h, w) in [−1, 1] resampled to (`height`, `width`), bilinear, times `STRETCH` and not clipped."""
    if plane.shape == (height, width):
        return plane
    return np.asarray(Image.fromarray(STRETCH * plane).resize((width, height), Image.Resampling.BILINEAR))


def add(picture: Picture, direction: Floats, eps: float) -> Picture:
    """Return `picture` uint8 plus `eps` times `direction` of the same shape, in at most 255 `eps` whole levels.

    A direction is clipped to [−1, 1].
    """
    most = int(LEVELS * eps + _ROUNDING)
    step = np.rint(direction * np.float32(LEVELS * eps)).clip(-most, most).astype(np.int16)
    changed: Picture = (step + picture).clip(0, LEVELS).astype(np.uint8)
    return changed
