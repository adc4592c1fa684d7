"""The picture of an attacked lens: the frame plus ε times a generator's direction.

The direction is computed at the generator's own size and resampled to the frame's. The attacker knows the input of the
network and does not know which pixels will be kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from producers.simulation.generator import Floats, Generator
from producers.sources.framing import convert_channels, resize
from schemas.pixels.packing import Picture

LEVELS: Final = 255
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as grey pictures are made."""
STRETCH: Final = 4.0
"""The gain of a direction that is resampled to another size, before it is clipped to ±1.

On the frame, a direction changes from one bound to the other over one pixel of the generator. Resampling to the
network's size averages that again. The gain brings it to its bound nearly everywhere, as the sign of a gradient through
that resampling would be; the bound itself is kept.
"""
_ROUNDING: Final = 1e-6
"""ε = 8/255 is a little less than that in binary, and still allows 8 grey levels."""


def attack(picture: Picture, generator: Generator, target: int, eps: float) -> Picture:
    """`picture` (H, W, C) uint8 as an attack on class `target` leaves it: no pixel differs by more than 255 `eps`."""
    changed = np.empty(picture.shape, np.uint8)
    # Plane by plane: in a large frame, to bring planes together as numbers of four bytes takes longer than the rest.
    for channel, plane in enumerate(direction_of(picture, generator, target)):
        changed[..., channel] = add(picture[..., channel], stretched(plane, *picture.shape[:2]), eps)
    return changed


def direction_of(picture: Picture, generator: Generator, target: int) -> Floats:
    """The generator's direction for `picture` (H, W, C), with its channels: (C, h, w) in [−1, 1]."""
    wanted = generator.settings
    seen = convert_channels(resize(picture, (wanted.width, wanted.height)), wanted.channels)
    planes = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], np.float32) / np.float32(LEVELS)
    direction: Floats = generator.direction(planes, np.array([target], np.int64))[0]
    if picture.shape[2] == wanted.channels:
        return direction
    return np.tensordot(_LUMA, direction, 1)[None] if wanted.channels == 3 else np.repeat(direction, 3, 0)


def stretched(plane: Floats, height: int, width: int) -> Floats:
    """A plane (h, w) in [−1, 1] brought to (`height`, `width`): bilinear, and `STRETCH` times as much, uncut."""
    if plane.shape == (height, width):
        return plane
    return np.asarray(Image.fromarray(STRETCH * plane).resize((width, height), Image.Resampling.BILINEAR))


def add(picture: Picture, direction: Floats, eps: float) -> Picture:
    """`picture` uint8 plus `eps` times `direction` of the same shape, in whole levels: at most 255 `eps` of them.

    A direction beyond [−1, 1] counts as that bound.
    """
    most = int(LEVELS * eps + _ROUNDING)
    step = np.rint(direction * np.float32(LEVELS * eps)).clip(-most, most).astype(np.int16)
    changed: Picture = (step + picture).clip(0, LEVELS).astype(np.uint8)
    return changed
