"""Random Crop (Guo et al. 2018), which section 6.3 of the paper compares with its own function under BPDA and EOT.

A random crop of 90×90 of a picture of 224×224, enlarged to the picture's size. Other sizes are in proportion. As in the
paper, each answer is of one crop, not the mean over 30 of Guo et al.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.cache import digest
from lab.experiments.preprocessing.defences import Function
from lab.experiments.preprocessing.papers_steps import PapersSteps

RANDOM_CROP: Final = "Random Crop"
"""The name in the tables."""
SHARE: Final = 90 / 224
"""Side of the crop as a share of the picture's."""


def random_crop(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random crop of each frame (B, C, H, W), enlarged to the frame's size. Differentiable."""
    height, width = frames.shape[2:]
    tall, wide = round(height * SHARE), round(width * SHARE)
    tops = torch.randint(0, height - tall + 1, (len(frames),), generator=generator).tolist()
    lefts = torch.randint(0, width - wide + 1, (len(frames),), generator=generator).tolist()
    crops = [
        frame[:, top : top + tall, left : left + wide] for frame, top, left in zip(frames, tops, lefts, strict=True)
    ]
    return F.interpolate(torch.stack(crops), (height, width), mode="bilinear", align_corners=False)


class RandomCrop(PapersSteps):
    """The attacks on one subject, also behind Random Crop."""

    def function(self, name: str) -> Function:
        """Return a defence by its name."""
        if name != RANDOM_CROP:
            return super().function(name)
        return Function(name, random_crop, random_crop, random=True, made_from=digest(name, SHARE))
