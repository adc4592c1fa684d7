"""The contract of a stage, the order of the stages, and the secret random draws of the random ones.

A stage maps pictures (B, C, H, W) in [0, 1], of the network's size but not normalised, to the same. It treats each
picture alone: the result does not depend on the rest of the batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from processors.stages.shapes import check_frames
from processors.stages.unpack import philox
from schemas.errors import StageError

_WORD: Final = 0xFFFFFFFF
_STAGE_BIT: Final = 56
_TILE_BIT: Final = 32
"""The seeds of a picture's stages, of its tiles and of its overlaid sums differ in separate bits."""


@dataclass(frozen=True)
class Stage:
    """A stage with its parameters loaded.

    `run` maps pictures (B, C, H, W) in [0, 1] and seeds (B,) int64 to pictures of the same shape; seeds are None if the
    stage is not `random`. If it is `differentiable`, gradients reach the pictures, given the draw; else they are zero.

    STRIP adds pictures without clamping the sums. If a picture exceeds 1, its result may as well, up to the picture's
    own maximum.
    """

    name: str
    run: Callable[[Tensor, Tensor | None], Tensor]
    differentiable: bool
    random: bool = False


class Place(NamedTuple):
    """The input size, the device and the files for a stage."""

    channels: int
    height: int
    width: int
    device: torch.device
    file: Callable[[str], Path]
    """Return the path of a bundle's file for a parameter; raises BundleError unless it is inside the bundle."""


class StageSettings(BaseModel):
    """One `[[preprocess]]` table: the stage's name and its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stage: str

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the bundle's files that the stage needs."""
        return ()

    @abstractmethod
    def load(self, place: Place) -> Stage:
        """Return the stage with its files read and checked; raises BundleError in one line."""


def preprocess(pictures: Tensor, stages: Sequence[Stage], seeds: Tensor | None = None) -> Tensor:
    """Apply the stages in order to pictures (B, C, H, W) in [0, 1]; the shape stays.

    `seeds` (B,) int64 determine the random draws, different ones for each stage: the same seed gives the same picture
    on any processor. None draws seeds from torch's global generator. The computation uses full precision in any
    context: coarse rounding before a quantisation would move a value by a whole step. Raises StageError if the shapes
    do not fit.
    """
    if not stages:
        return pictures
    check_frames(pictures, "pictures")
    if any(stage.random for stage in stages):
        seeds = fresh_seeds(len(pictures), pictures.device) if seeds is None else seeds
        if tuple(seeds.shape) != (len(pictures),) or seeds.dtype != torch.int64:
            raise StageError(f"seeds: expected ({len(pictures)},) int64, got {tuple(seeds.shape)} {seeds.dtype}")
    with torch.autocast(pictures.device.type, enabled=False):
        if pictures.dtype.itemsize < torch.float32.itemsize:
            pictures = pictures.float()
        for number, stage in enumerate(stages):
            own = None if seeds is None or not stage.random else seeds ^ (number << _STAGE_BIT)
            pictures = stage.run(pictures, own)
    return pictures


def straight_through(stage: Stage) -> Stage:
    """Return the same stage with the identity's gradient if it has no gradient (Athalye et al. 2018, BPDA)."""
    if stage.differentiable:
        return stage

    def run(pictures: Tensor, seeds: Tensor | None) -> Tensor:
        return pictures + (stage.run(pictures, seeds) - pictures).detach()

    return replace(stage, run=run, differentiable=True)


def fresh_seeds(count: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None) -> Tensor:
    """Return seeds (count,) int64 on `device`, drawn from `generator` or torch's global one on the CPU."""
    # Drawn on the CPU: a seed set there gives the same draws on any device. The largest number never occurs.
    home = generator.device if generator is not None else torch.device("cpu")
    bounds = torch.iinfo(torch.int64)
    return torch.randint(bounds.min, bounds.max, (count,), generator=generator, device=home).to(device)


def seeds_of_tiles(seeds: Tensor, count: int) -> Tensor:
    """Return seeds (B · count,) of the tiles of pictures with `seeds` (B,), those of one picture together."""
    return (seeds[:, None] ^ (torch.arange(count, device=seeds.device) << _TILE_BIT)).flatten()


def seeds_of_sums(seeds: Tensor, count: int) -> Tensor:
    """Return seeds (B, count) of pictures with `seeds` (B,) under each of `count` overlays, all unlike the picture's
    own.
    """
    return seeds[:, None] ^ torch.arange(1, count + 1, device=seeds.device)


def uniform(seeds: Tensor, count: int) -> Tensor:
    """Return (B, count) float64 in [0, 1) from Philox-4x32-10 under the two words of each of `seeds` (B,) int64."""
    words = philox(torch.stack((seeds & _WORD, seeds >> 32 & _WORD), dim=1), -(-count // 4))
    return words.flatten(1)[:, :count].double() / 2**32


def in_range(result: Tensor, pictures: Tensor) -> Tensor:
    """Clamp `result` (B, C, H, W) to [0, 1], or to the maximum of its picture if that is larger."""
    return result.clamp_min(0).minimum(pictures.detach().amax((1, 2, 3), keepdim=True).clamp_min(1))
