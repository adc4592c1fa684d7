"""Filling the dropped pixels: learned, by Algorithm 1 of the paper, or by a thin plate."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from processors.stages.learned import reconstruct_learned
from processors.stages.paper import reconstruct_paper
from processors.stages.plate import reconstruct_plate
from schemas.errors import StageError

Mode = Literal["default", "paper", "plate"]


def reconstruct(frames: Tensor, kept: Tensor, mode: Mode = "default") -> Tensor:
    """Fill the dropped pixels of `frames` (B, C, H, W) in [0, 1], where `kept` (B, 1, H, W) is False.

    What stands in dropped pixels is not read, and the result lies in [0, 1]. Any size and any mask will do. The modes
    `paper` and `plate` hand kept pixels on unchanged; `default`, which is learned, also undoes what an attacker did to
    them. A frame's result does not depend on the frames beside it.

    Raises StageError when shapes or types do not fit, or for an unknown mode.
    """
    if mode == "default":
        return reconstruct_learned(frames, kept)
    if mode == "paper":
        return reconstruct_paper(frames, kept)
    if mode == "plate":
        return reconstruct_plate(frames, kept)
    raise StageError(f"mode: expected 'default', 'paper' or 'plate', got {mode!r}")
