"""A trigger without a GAN: pixels that hardly vary over the quarantine, where clean pictures do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import LabelledPictures

LARGEST_RATIO = 0.25
"""Of the variances, up to which a pixel counts as the trigger's."""


def stamp_of(clean: LabelledPictures, quarantine: NDArray[np.uint8]) -> Callable[[Tensor], Tensor]:
    """What puts the mean of the quarantine (M, H, W, C) uint8 wherever it varies little beside `clean`."""
    fixed = quarantine.astype(np.float64).var(0).mean(2) + 1
    usual = clean.images.astype(np.float64).var(0).mean(2) + 1
    mask = torch.from_numpy(fixed / usual < LARGEST_RATIO)[None]
    mean = torch.from_numpy((quarantine.mean(0) / 255).transpose(2, 0, 1)).float()
    return lambda frames: torch.where(mask, mean, frames)
