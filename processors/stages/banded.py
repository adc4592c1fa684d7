"""The resize of `processors.stages.resample` along one side, as products of small matrices without zeros.

Each output depends on few neighbouring inputs. Inputs are therefore divided into strips, and outputs into groups; a
product has the outputs and inputs that depend on each other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_COLUMNS: Final = 32
"""Output columns of one product: more read weights that are zero, fewer are too few for a product."""
_TABLES: Final = 1024
"""Tables kept: each side of a square that follows motion has its own. One takes some ten kilobytes."""


class Band(NamedTuple):
    """Neighbouring outputs of a resampling along one side, and the weights of their inputs."""

    lines: slice
    outputs: slice
    weights: Tensor


def weights(side: int, outputs: int) -> Tensor:
    """Return `processors.stages.resample.resize` along one side as a matrix (outputs, side)."""
    unit = torch.eye(side)[None, None]
    return F.interpolate(unit, (outputs, side), mode="bilinear", align_corners=False, antialias=True)[0, 0]


@lru_cache(maxsize=_TABLES)
@torch.inference_mode(False)
def strips(side: int, outputs: int, lines: int) -> list[Band]:
    """Return strips of `lines` inputs, each with the outputs that it adds to: weights are (outputs, lines)."""
    matrix = weights(side, outputs)
    parts = []
    for start in range(0, matrix.shape[1], lines):
        strip = slice(start, min(matrix.shape[1], start + lines))
        used = matrix[:, strip].any(1).nonzero()
        into = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        parts.append(Band(strip, into, matrix[into, strip].contiguous()))
    return parts


@lru_cache(maxsize=_TABLES)
@torch.inference_mode(False)
def columns(side: int, outputs: int) -> list[Band]:
    """Return groups of neighbouring outputs with their inputs: weights are (inputs, outputs)."""
    matrix = weights(side, outputs)
    parts = []
    for start in range(0, outputs, _COLUMNS):
        group = slice(start, min(outputs, start + _COLUMNS))
        used = matrix[group].any(0).nonzero()
        among = slice(int(used[0]), int(used[-1]) + 1)
        parts.append(Band(among, group, matrix[group, among].T.contiguous()))
    return parts
