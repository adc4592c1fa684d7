"""Step 1 of Qiu et al., "An Efficient Preprocessing-based Approach" (Algorithm 1): quantised 8×8 DCT coefficients.

Every channel is cut into 8×8 blocks. The coefficients c = DCT(block) on the scale 0–255 become Q · round(c / Q), and
the block is their inverse. Steps Q are large at the coefficients that attacks change most: `pointillist lab
learn-table` counts those (Algorithm 2).

The paper leaves two cases open. Sides that are no multiple of 8 are extended here by their last row and column, as in
JPEG. Values beyond the range are clamped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from processors.stages.preprocess.blocks import SIDE, Quantiser, quantised, quantiser
from processors.stages.preprocess.contract import Place, Stage, StageSettings, in_range
from schemas.errors import BundleError

LARGEST: float = 2040.0
"""The largest possible coefficient: 8 · 255."""


class DctQuantisation(StageSettings):
    """The settings of the stage; `table` names the bundle's file of steps."""

    stage: Literal["dct-quantisation"]
    table: str
    """A file of the bundle: 8 lines of 8 steps on the scale 0–255."""

    @property
    def files(self) -> tuple[str, ...]:
        """See `StageSettings`."""
        return (self.table,)

    def load(self, place: Place) -> Stage:
        """See `StageSettings`."""
        steps = quantiser(read_table(place.file(self.table)) / 255, place.device)
        return Stage(self.stage, partial(_run, steps), differentiable=False)


def _run(steps: Quantiser, pictures: Tensor, seeds: Tensor | None) -> Tensor:
    return in_range(quantised(pictures, steps), pictures)


def dct_quantise(pictures: Tensor, steps: Tensor) -> Tensor:
    """Quantise pictures (B, C, H, W) in [0, 1] by `steps` (8, 8) on the scale 0–255; their gradient is zero."""
    return _run(quantiser(steps / 255, pictures.device), pictures, None)


def read_table(file: Path) -> Tensor:
    """Read the steps (8, 8) of a text file: 8 lines of 8 numbers above 0 and up to 2040; `#` begins a comment.

    A line is a vertical frequency, a column a horizontal one, the lowest first. Raises BundleError.
    """
    try:
        lines = [line.partition("#")[0].split() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{file.name}: expected a readable text file with a table of steps, got {error}. Correct the file."
        ) from None
    rows = [[_number(word, file) for word in line] for line in lines if line]
    if len(rows) != SIDE or any(len(row) != SIDE for row in rows):
        got = f"{len(rows)} lines" if len(rows) != SIDE else f"lines of {sorted({len(row) for row in rows})}"
        raise BundleError(f"{file.name}: expected {SIDE} lines of {SIDE} steps, got {got}. Correct the file.")
    return torch.tensor(rows)


def _number(word: str, file: Path) -> float:
    try:
        step = float(word)
    except ValueError:
        step = math.nan
    if not 0 < step <= LARGEST:
        raise BundleError(f"{file.name}: expected steps above 0 and up to {LARGEST:g}, got {word!r}. Correct the file.")
    return step


def table_text(steps: Tensor, comments: Sequence[str]) -> str:
    """Return the text of a table for `read_table`, with `comments` above."""
    head = "".join(f"# {line}\n" for line in comments)
    return head + "".join(" ".join(f"{step:7.2f}" for step in row) + "\n" for row in steps.tolist())
