"""Bit-depth reduction (Xu et al., Feature Squeezing, NDSS 2018): x becomes round(x · (2^i − 1)) / (2^i − 1)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from processors.stages.preprocess.contract import Place, Stage, StageSettings


class BitDepth(StageSettings):
    """The settings of bit-depth reduction; `bits` is i."""

    stage: Literal["bit-depth"]
    bits: Annotated[int, Field(ge=1, le=8)]
    """A channel has 2^bits levels."""

    def load(self, place: Place) -> Stage:
        """See `StageSettings`."""
        return Stage(self.stage, partial(_run, self.bits), differentiable=False)


def _run(bits: int, pictures: Tensor, seeds: Tensor | None) -> Tensor:
    return reduce_depth(pictures, bits)


def reduce_depth(pictures: Tensor, bits: int) -> Tensor:
    """Reduce pictures (B, C, H, W) in [0, 1] to 2^bits levels a channel; their gradient is zero."""
    levels: int = 2**bits - 1
    return (pictures * levels).round() / levels
