"""Small rotations: the worst angle of a grid (after Engstrom et al. 2019). No Lp ball contains such changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.contract import Logits, in_batches, margins

_ANGLES = 13


@dataclass(frozen=True)
class Rotation:
    """A rotation by one of 13 angles between −`eps` and `eps` degrees, the best for the attacker.

    It needs no gradients.
    """

    eps: float = 15.0
    name: str = "rotation"

    @torch.no_grad()
    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`. The generator is not used."""
        found = []
        for part, part_labels, part_targets in in_batches(frames, labels, targets):
            best, best_margin = part, torch.full((len(part),), -torch.inf, device=part.device)
            for degrees in torch.linspace(-self.eps, self.eps, _ANGLES).tolist():
                turned = rotate(part, degrees)
                margin = margins(logits(turned), part_labels, part_targets)
                better = margin > best_margin
                best = torch.where(better[:, None, None, None], turned, best)
                best_margin = torch.where(better, margin, best_margin)
            found.append(best)
        return torch.cat(found)


def rotate(frames: Tensor, degrees: float) -> Tensor:
    """Return frames (B, C, H, W) rotated anticlockwise about their centre, bilinear, with reflected corners."""
    height, width = frames.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The grid's coordinates range from −1 to 1 along either side, for any side length.
    turn = frames.new_tensor([[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]])
    grid = F.affine_grid(turn.expand(len(frames), 2, 3), list(frames.shape), align_corners=False)
    turned = F.grid_sample(frames, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return turned.clamp(0, 1)
