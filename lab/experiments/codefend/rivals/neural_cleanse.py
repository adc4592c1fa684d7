"""Neural Cleanse (Wang et al. 2019): for each class, the smallest patch that takes all pictures to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.data import LabelledPictures, to_frames
from lab.repair.tuning import CPU
from processors.bundle import Bundle

CONSISTENCY = 1.4826
"""Factor from the median absolute deviation of normal values to their standard deviation."""


@dataclass(frozen=True)
class Reversed:
    """A trigger for `target`: `mask` (1, H, W) in [0, 1], `pattern` (C, H, W), and its success rate."""

    target: int
    mask: Tensor
    pattern: Tensor
    success: float
    anomaly: float = 0.0

    def stamp(self, frames: Tensor) -> Tensor:
        """Return frames (B, C, H, W) in [0, 1] with the trigger."""
        return frames * (1 - self.mask) + self.pattern * self.mask


def reverse(
    sick: Bundle, frames: Tensor, target: int, *, steps: int, batch: int = 50, rate: float = 0.1, seed: int = 0
) -> Reversed:
    """Minimise cross entropy to `target` + cost · |mask|₁ by Adam. The cost follows the success (section IV)."""
    shape = frames.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    raw_mask = (torch.rand(1, *shape[1:], generator=generator) * 0.2 - 4).requires_grad_()
    raw_pattern = (torch.rand(*shape, generator=generator) - 0.5).requires_grad_()
    optimiser = torch.optim.Adam([raw_mask, raw_pattern], lr=rate, betas=(0.5, 0.9))
    cost, smoothed = 1e-3, 0.0
    best: Reversed | None = None
    for _ in range(steps):
        index = torch.randint(len(frames), (batch,), generator=generator)
        mask, pattern = raw_mask.sigmoid(), raw_pattern.sigmoid()
        logits = sick.logits(frames[index] * (1 - mask) + pattern * mask)
        aim = torch.full((batch,), target)
        loss = F.cross_entropy(logits, aim) + cost * mask.sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        success = float((logits.argmax(1) == target).float().mean())
        smoothed = 0.9 * smoothed + 0.1 * success
        cost *= 1.1 if smoothed > 0.95 else 1 / 1.05
        found = Reversed(target, mask.detach(), pattern.detach(), success)
        if best is None or _better(found, best):
            best = found
    assert best is not None
    return best


def _better(found: Reversed, best: Reversed) -> bool:
    if (found.success >= 0.98) != (best.success >= 0.98):
        return found.success >= 0.98
    return float(found.mask.sum()) < float(best.mask.sum()) if found.success >= 0.98 else found.success > best.success


def anomalies(found: list[Reversed]) -> list[Reversed]:
    """Return each trigger with its anomaly index: the distance of its mask's norm below the median, in deviations."""
    norms = np.array([float(trigger.mask.sum()) for trigger in found])
    middle = np.median(norms)
    deviation = CONSISTENCY * float(np.median(np.abs(norms - middle))) or 1.0
    return [
        Reversed(t.target, t.mask, t.pattern, t.success, float((middle - norm) / deviation))
        for t, norm in zip(found, norms, strict=True)
    ]


def cleanse(sick: Bundle, clean: LabelledPictures, *, steps: int) -> Reversed:
    """Return the trigger of the most anomalous class, whether or not it is called infected."""
    frames = to_frames(clean.images, CPU)
    # The network is fixed: only the trigger has a gradient.
    classes = range(len(sick.settings.classes))
    return max(anomalies([reverse(sick, frames, target, steps=steps) for target in classes]), key=lambda t: t.anomaly)
