"""Step 2 of Qiu et al., "An Efficient Preprocessing-based Approach" (Algorithm 3): a randomly distorted grid.

From a random corner, cells of d pixels are stretched or compressed by random factors in [1 − δ, 1 + δ]: x_m = x_{m−1} +
d · (1 + δ_x), and the same for y. The area between the distorted lines is remapped to cells of exactly d pixels.
Compressed cells lose rows and columns; stretched parts beyond the frame are cut off.

Algorithm 3 draws for every (m, n), but x_m depends on m alone: one factor for each column of cells and one for each
row, as in the authors' released code. The paper leaves the sampling open. Here an output pixel shows the input pixel
whose square contains its centre, and border pixels repeat beyond the border. Pixels are dropped and displaced, not
mixed.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from processors.stages.preprocess.contract import Place, Stage, StageSettings, uniform
from schemas.errors import StageError


class GridDistortion(StageSettings):
    """The settings of the stage: `limit` is δ, `cell` is d in pixels of the network's input."""

    stage: Literal["grid-distortion"]
    limit: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.15
    """Largest stretch or compression of a cell, as a share of its side."""
    cell: Annotated[int, Field(ge=1, le=4096)] = 8
    """Side of a cell, in pixels of the network's input."""

    def load(self, place: Place) -> Stage:
        """See `StageSettings`."""
        run = partial(_run, self.limit, self.cell)
        return Stage(self.stage, run, differentiable=True, random=True)


def _run(limit: float, cell: int, pictures: Tensor, seeds: Tensor | None) -> Tensor:
    if seeds is None:
        raise StageError("grid-distortion: expected a seed for each picture, got none")
    return distort(pictures, seeds, limit, cell)


def distort(pictures: Tensor, seeds: Tensor, limit: float = 0.15, cell: int = 8) -> Tensor:
    """Displace the pixels of pictures (B, C, H, W) by `seeds` (B,) int64; every output value is one of the picture's.

    `limit` is δ in [0, 1], `cell` d in pixels. The gradient goes to the pixels that are shown.
    """
    batch, channels, height, width = pictures.shape
    columns, rows = -(-width // cell), -(-height // cell)
    draws = uniform(seeds, 2 + columns + rows)
    far = draws[:, :2] >= 0.5
    x = sources(draws[:, 2 : 2 + columns], far[:, 0], width, limit, cell)
    y = sources(draws[:, 2 + columns :], far[:, 1], height, limit, cell)
    places = (y[:, :, None] * width + x[:, None, :]).view(batch, 1, height * width).expand(-1, channels, -1)
    return pictures.flatten(2).gather(2, places).view_as(pictures)


def sources(draws: Tensor, far: Tensor, side: int, limit: float, cell: int) -> Tensor:
    """Return the source positions of `side` pixels along one side: (B, side) int64.

    `draws` (B, cells) in [0, 1) are the cells' factors; `far` (B,) bool is True if the grid starts at the far end.
    """
    steps = cell * (1 + limit * (2 * draws - 1))
    ends = steps.cumsum(1)
    position = torch.arange(side, device=draws.device)
    number, within = position // cell, (position % cell + 0.5) / cell
    shown = (ends - steps)[:, number] + steps[:, number] * within
    place = shown.floor().long().clamp(0, side - 1)
    return torch.where(far[:, None], side - 1 - place.flip(1), place)
