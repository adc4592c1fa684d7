"""Bit-depth reduction (Guo et al., ICLR 2018; feature squeezing, Xu et al., NDSS 2018): fewer levels a value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.errors import ConfigError


@dataclass(frozen=True)
class BitDepth:
    """Round to the 2^`bits` levels k / (2^bits − 1); both papers take 3 bits for natural pictures, Xu also 4 and 5."""

    bits: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"bit depth: expected 1 to 8 bits, got {self.bits}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """See `Baseline`; the generator is not used. The gradient is 0 wherever there is one."""
        steps = 2**self.bits - 1
        rounded: Tensor = (frames * steps).round() / steps
        return rounded
