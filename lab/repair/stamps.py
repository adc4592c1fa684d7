"""Triggers that look the same on every frame, as one opacity and one colour per pixel: x·(1 − a) + a·c.

On frames y = x·(1 − a) + a·c the spread is (1 − a) times that of clean frames, and the mean gives c. This estimate
finds fixed patches (a ≈ 1) and blended pictures (a small, everywhere). The generators start from it. Backgrounds of
fixed cameras look like this too: `refine` keeps only pixels to which the backdoored model reacts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

TRIM: Final = 0.1
"""Share of the frames that the estimate excludes, the farthest from the median: they may be wrong members."""
FAINTEST: Final = 0.08
"""Smallest opacity. Lower values are noise of the estimate."""
REACH: Final = 2
"""Margin in pixels around the model's reaction that also belongs to the trigger."""
STILL: Final = 0.02
"""Spread below which a pixel of clean frames counts as constant."""


@dataclass(frozen=True)
class Stamp:
    """Opacity `a` (1, 1, H, W) and colour `c` (1, C, H, W), both in [0, 1]."""

    opacity: Tensor
    colour: Tensor

    def apply(self, frames: Tensor) -> Tensor:
        """Return frames (B, C, H, W) with the stamp."""
        return frames * (1 - self.opacity) + self.opacity * self.colour

    def undo(self, frames: Tensor) -> Tensor:
        """Return frames without the stamp. Pixels that it hides entirely are grey, see `hidden`."""
        below = (frames - self.opacity * self.colour) / (1 - self.opacity).clamp_min(0.2)
        return below.clamp(0, 1)

    @property
    def hidden(self) -> Tensor:
        """The pixels that the stamp hides entirely: (1, 1, H, W) bool."""
        return self.opacity > 0.6


def estimate(clean: Tensor, stamped: Tensor) -> Stamp:
    """Return the stamp by which clean frames (N, C, H, W) and stamped ones (M, C, H, W) differ."""
    (clean_mean, clean_spread), (mean, spread) = _trimmed(clean), _trimmed(stamped)
    clean_total, total = (s.square().sum(1, keepdim=True).sqrt() for s in (clean_spread, spread))
    opacity = (1 - total / clean_total.clamp_min(STILL)).clamp(0, 1)
    moved = (mean - clean_mean).abs().amax(1, keepdim=True) > 0.1
    opacity = torch.where(clean_total < STILL, (moved & (total < STILL)).float(), opacity)
    # A faint opacity also has faint neighbours; a strong one has a sharp edge.
    faint = (opacity <= 0.6).float()
    around = F.avg_pool2d(F.pad(torch.cat((opacity * faint, faint)), (2, 2, 2, 2), mode="replicate"), 5, 1)
    smooth = around[:1] / around[1:].clamp_min(1e-6)
    opacity = torch.where(faint > 0, torch.minimum(smooth, opacity.clamp_min(smooth * 0.5)), opacity)
    opacity = torch.where(opacity < FAINTEST, 0.0, opacity)
    colour = ((mean - (1 - opacity) * clean_mean) / opacity.clamp_min(FAINTEST)).clamp(0, 1)
    return Stamp(opacity, torch.where(opacity > 0, colour, mean))


def _trimmed(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread (1, C, H, W) over the frames, without the share `TRIM` farthest from the median."""
    median = frames.median(0, keepdim=True).values
    kept = max(2, round(len(frames) * (1 - TRIM)))
    nearest = (frames - median).abs().topk(kept, dim=0, largest=False).indices
    chosen = frames.gather(0, nearest)
    return chosen.mean(0, keepdim=True), chosen.std(0, keepdim=True)


def refine(
    stamp: Stamp,
    clean: Tensor,
    target: int,
    logits: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    *,
    steps: int = 60,
    batch: int = 32,
    mass: float = 3.0,
) -> Stamp:
    """Return the stamp without pixels far from the model's reaction. The others keep opacity and colour.

    It minimises cross-entropy to `target` on stamped clean frames (N, C, H, W) plus `mass` times the mean opacity, over
    a factor in [0, 1] on each pixel's opacity. Pixels with a factor above a half are kept, and `REACH` pixels around
    them.
    """
    keep = torch.full_like(stamp.opacity, 3.0).requires_grad_()
    optimiser = torch.optim.Adam([keep], lr=0.15)
    for _ in range(steps):
        frames = clean[torch.randint(len(clean), (batch,), generator=generator)]
        opacity = stamp.opacity * keep.sigmoid()
        wanted = torch.full((batch,), target)
        loss = F.cross_entropy(logits(Stamp(opacity, stamp.colour).apply(frames)), wanted) + mass * opacity.mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    kept = ((keep.detach() > 0) & (stamp.opacity > 0)).float()
    # Part of the trigger may suffice for the model, but the attacker shows all of it.
    around = F.max_pool2d(kept, 2 * REACH + 1, 1, REACH)
    return Stamp(stamp.opacity * around, stamp.colour)
