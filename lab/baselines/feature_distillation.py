"""Feature Distillation (Liu et al., CVPR 2019): a DCT quantisation with steps chosen against perturbations.

Each channel's 8×8 blocks are transformed by the orthonormal DCT-II on the scale 0–255. Coefficients of the
accuracy-sensitive band are rounded to multiples of one step, those of the malicious band to multiples of a larger one.

The paper derives band and steps from statistics of its own training pictures and does not define them for other data.
The defaults are those of the authors' released code: steps of 25 for the 4×4 lowest frequencies and of 30 for all
others. The channels red, green and blue are processed separately. Entropy coding is left out, because it would change
no pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.baselines.contract import SIDE
from processors.stages.preprocess.blocks import quantised, quantiser
from schemas.errors import ConfigError


@dataclass(frozen=True)
class FeatureDistillation:
    """Quantisation on the scale 0–255: `sensitive_step` in the lowest `band` × `band` frequencies, else `step`."""

    step: float = 30.0
    sensitive_step: float = 25.0
    band: int = 4

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.sensitive_step > 0 and 0 <= self.band <= SIDE):
            raise ConfigError(
                f"feature distillation: expected steps above 0 and a band of 0 to {SIDE} frequencies, "
                f"got {self.step}, {self.sensitive_step} and {self.band}"
            )

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the quantised frames. See `Baseline`. The generator is not used."""
        steps = torch.full((SIDE, SIDE), self.step / 255)
        steps[: self.band, : self.band] = self.sensitive_step / 255
        return quantise(frames, steps)


def quantise(frames: Tensor, steps: Tensor) -> Tensor:
    """Return frames (B, C, H, W) in [0, 1] with DCT coefficients rounded to multiples of `steps` (8, 8), clamped."""
    return quantised(frames, quantiser(steps, frames.device)).clamp(0, 1)
