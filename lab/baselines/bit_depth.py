"""Bit-depth reduction (Guo et al., ICLR 2018; feature squeezing, Xu et al., NDSS 2018): fewer levels per value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from processors.stages.preprocess.bit_depth import reduce_depth
from schemas.errors import ConfigError


@dataclass(frozen=True)
class BitDepth:
    """Rounding to the 2^`bits` levels k / (2^bits − 1). Both papers use 3 bits for natural pictures, Xu also 4, 5."""

    bits: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"bit depth: expected 1 to 8 bits, got {self.bits}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rounded frames. See `Baseline`. The generator is not used. The gradient is 0."""
        return reduce_depth(frames, self.bits)
