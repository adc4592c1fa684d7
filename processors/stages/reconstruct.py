"""Filling the dropped pixels: learned, by Algorithm 1 of the paper, by a thin plate, or not at all."""

from __future__ import annotations

from torch import Tensor

from processors.stages.learned import reconstruct_learned
from processors.stages.modes import Mode
from processors.stages.paper import reconstruct_paper
from processors.stages.plate import reconstruct_plate
from processors.stages.shapes import check_kept
from schemas.errors import StageError


def reconstruct(frames: Tensor, kept: Tensor, mode: Mode = "default") -> Tensor:
    """Fill the dropped pixels of `frames` (B, C, H, W) in [0, 1], where `kept` (B, 1, H, W) is False.

    Values of dropped pixels are not read, and the result lies in [0, 1]. Any size and any mask are valid. A frame's
    result does not depend on the rest of the batch. The modes:

    - `paper` and `plate` pass kept pixels unchanged.
    - `default`, the learned one, also undoes an attacker's changes to them.
    - `none` leaves dropped pixels black: the network sees a whole frame unchanged.

    Raises StageError if shapes or types do not fit, or for an unknown mode.
    """
    if mode == "default":
        return reconstruct_learned(frames, kept)
    if mode == "paper":
        return reconstruct_paper(frames, kept)
    if mode == "plate":
        return reconstruct_plate(frames, kept)
    if mode == "none":
        check_kept(frames, kept)
        return frames.masked_fill(~kept, 0)
    raise StageError(f"mode: expected 'default', 'paper', 'plate' or 'none', got {mode!r}")
