"""Shield's stochastic local quantisation (Das et al., KDD 2018, section 3): JPEG of a random quality in each block.

The picture is compressed at every quality. Each 8×8 block is taken from one of the results, uniformly and
independently. The paper's parameters are qualities 20, 40, 60 and 80, and blocks of 8. The paper does not define the
codec's treatment of colour. Here it is Pillow's, at half resolution and smoothed over block borders. The paper's second
half, an ensemble of networks retrained on compressed pictures, is left out, because the network defended here is
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.baselines.contract import SIDE
from lab.baselines.jpeg import jpeg
from schemas.errors import ConfigError


@dataclass(frozen=True)
class Shield:
    """JPEG with one of `qualities`, 1–95, chosen at random for each block."""

    qualities: tuple[int, ...] = (20, 40, 60, 80)

    def __post_init__(self) -> None:
        if not self.qualities or not all(1 <= quality <= 95 for quality in self.qualities):
            raise ConfigError(f"shield: expected qualities from 1 to 95, got {self.qualities}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the compressed frames. See `Baseline`."""
        choice = self.choice(frames, generator)
        result = torch.empty_like(frames)
        for number, quality in enumerate(self.qualities):
            result = torch.where(choice == number, jpeg(frames, quality), result)
        return result

    def choice(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the index of the quality of each pixel of frames (B, C, H, W): (B, 1, H, W)."""
        height, width = frames.shape[2:]
        blocks = len(frames), 1, -(-height // SIDE), -(-width // SIDE)
        drawn = torch.randint(len(self.qualities), blocks, generator=generator, device=generator.device)
        return drawn.to(frames.device).repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)[..., :height, :width]
