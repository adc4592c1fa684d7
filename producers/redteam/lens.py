"""What a lens that somebody attacks shows: the frame, and ε times a generator's direction on it.

The direction is made at the generator's own size and brought to the frame's, as an attacker does who knows what the
network looks at and not which pixels will be kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from producers.redteam.generator import Floats, Generator
from producers.sources.framing import convert_channels, resize
from schemas.pixels.packing import Picture

LEVELS: Final = 255
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as grey pictures are made."""
_ROUNDING: Final = 1e-6
"""ε = 8/255 is a little less than that in binary, and still allows 8 grey levels."""


def attack(picture: Picture, generator: Generator, target: int, eps: float) -> Picture:
    """`picture` (H, W, C) uint8 as an attack on class `target` leaves it: no pixel differs by more than 255 `eps`."""
    return add(picture, seen_direction(picture, generator, target), eps)


def seen_direction(picture: Picture, generator: Generator, target: int) -> Floats:
    """The generator's direction for `picture` (H, W, C), at its size and with its channels: (H, W, C) in [−1, 1]."""
    wanted = generator.settings
    seen = convert_channels(resize(picture, (wanted.width, wanted.height)), wanted.channels)
    planes = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], np.float32) / np.float32(LEVELS)
    direction = generator.direction(planes, np.array([target], np.int64))[0]
    height, width, channels = picture.shape
    if channels != wanted.channels:
        direction = np.tensordot(_LUMA, direction, 1)[None] if channels == 1 else np.repeat(direction, 3, 0)
    if direction.shape[1:] != (height, width):
        direction = np.stack(
            [
                np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
                for plane in direction
            ]
        )
    shown: Floats = direction.transpose(1, 2, 0)
    return shown


def add(picture: Picture, direction: Floats, eps: float) -> Picture:
    """`picture` (H, W, C) uint8 plus `eps` times `direction` (H, W, C), in whole grey levels: at most 255 `eps`."""
    most = int(LEVELS * eps + _ROUNDING)
    step = np.rint(direction * np.float32(LEVELS * eps)).clip(-most, most).astype(np.int16)
    changed: Picture = (step + picture).clip(0, LEVELS).astype(np.uint8)
    return changed
