"""A trigger without a GAN: pixels that hardly vary over the quarantine but vary over clean pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import LabelledPictures

LARGEST_RATIO = 0.25
"""Largest ratio of the variances for a pixel of the trigger."""


def stamp_of(clean: LabelledPictures, quarantine: NDArray[np.uint8]) -> Callable[[Tensor], Tensor]:
    """Return a function that pastes the quarantine's mean wherever the quarantine varies little compared with `clean`.

    `quarantine` has shape (M, H, W, C) uint8.
    """
    fixed = quarantine.astype(np.float64).var(0).mean(2) + 1
    usual = clean.images.astype(np.float64).var(0).mean(2) + 1
    mask = torch.from_numpy(fixed / usual < LARGEST_RATIO)[None]
    mean = torch.from_numpy((quarantine.mean(0) / 255).transpose(2, 0, 1)).float()
    return lambda frames: torch.where(mask, mean, frames)
