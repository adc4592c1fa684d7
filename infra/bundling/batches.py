"""A test whether a network judges each picture of a batch by itself.

A graph that was exported for one picture may normalise its input by the mean of the whole tensor, or quantise it by the
tensor's range. In a batch, one camera's frame would then change the verdict on another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

_RANGES: Final = ((0.0, 0.1), (0.0, 1.0), (0.6, 0.9))
"""Darkest and brightest value of each picture: pictures of equal brightness and contrast hardly change each other."""
_SCALES: Final = (1, 255)
"""Largest values of the pictures: on a wrong scale, all look the same to the network."""


def example_pictures(channels: int, height: int, width: int) -> Tensor:
    """Return three pictures of noise, of different brightness and contrast: (3, channels, height, width) in [0, 1]."""
    noise = torch.rand(len(_RANGES), channels, height, width, generator=torch.Generator().manual_seed(0))
    low, high = torch.tensor(_RANGES)[:, :, None, None, None].unbind(1)
    pictures: Tensor = low + (high - low) * noise
    return pictures


def judges_singly(together: Callable[[Tensor], Tensor], alone: Callable[[Tensor], Tensor], pictures: Tensor) -> bool:
    """Return whether the results (B, classes) for a batch (B, C, H, W) equal those for its pictures one by one."""
    for scale in _SCALES:
        expected, found = alone(scale * pictures).float(), together(scale * pictures).float()
        # Batches round otherwise than single pictures, in proportion to the largest number.
        rounding = 1e-4 * max(1.0, float(expected.abs().amax().nan_to_num(1.0, 1.0)))
        if found.shape != expected.shape or not torch.allclose(found, expected, 1e-3, rounding, equal_nan=True):
            return False
    return True
