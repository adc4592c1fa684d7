"""What a stage is, the order in which stages run, and where the secret draws of the random ones come from.

A stage maps pictures (B, C, H, W) in [0, 1], as the network takes them but not normalised, to the same. It treats each
picture alone: what comes out of one does not depend on the others of its batch.
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
"""Seeds of the stages of one picture, of its tiles and of what is laid over it differ in bits of their own."""


@dataclass(frozen=True)
class Stage:
    """One stage at work.

    `run` maps pictures (B, C, H, W) in [0, 1] and seeds (B,) int64 to pictures of the same shape; seeds are None where
    the stage is not `random`. Gradients reach the pictures where it is `differentiable`, given the draw; else they are
    zero. STRIP lays pictures over each other without clamping the sums: where a picture exceeds 1, so may what comes of
    it, up to its own maximum.
    """

    name: str
    run: Callable[[Tensor, Tensor | None], Tensor]
    differentiable: bool
    random: bool = False


class Place(NamedTuple):
    """Where a stage is to work."""

    channels: int
    height: int
    width: int
    device: torch.device
    file: Callable[[str], Path]
    """The file of the bundle that a parameter names; raises BundleError unless it is inside the bundle."""


class StageSettings(BaseModel):
    """One `[[preprocess]]` table: the stage's name and its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stage: str

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the bundle's files that the stage needs."""
        return ()

    @abstractmethod
    def load(self, place: Place) -> Stage:
        """The stage with its files read and checked; raises BundleError in one line."""


def preprocess(pictures: Tensor, stages: Sequence[Stage], seeds: Tensor | None = None) -> Tensor:
    """Pictures (B, C, H, W) in [0, 1] through the stages in their order, to the same shape.

    `seeds` (B,) int64 make the random stages' draws, of each stage others: the same seed gives the same picture on any
    processor. None draws fresh ones from torch's global generator. Computed in full precision whatever the arithmetic
    around it: to round coarsely what is about to be quantised would move it a whole step. Raises StageError when the
    shapes do not fit.
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
    """The same stage, whose gradient is the identity's where it has none of its own (Athalye et al. 2018, BPDA)."""
    if stage.differentiable:
        return stage

    def run(pictures: Tensor, seeds: Tensor | None) -> Tensor:
        return pictures + (stage.run(pictures, seeds) - pictures).detach()

    return replace(stage, run=run, differentiable=True)


def fresh_seeds(count: int, device: torch.device | str = "cpu", generator: torch.Generator | None = None) -> Tensor:
    """Seeds (count,) int64 on `device`, drawn from `generator` or torch's global one on the CPU."""
    # Drawn on the CPU, so that a seed set there gives the same ones on any device; the largest number never comes.
    home = generator.device if generator is not None else torch.device("cpu")
    bounds = torch.iinfo(torch.int64)
    return torch.randint(bounds.min, bounds.max, (count,), generator=generator, device=home).to(device)


def seeds_of_tiles(seeds: Tensor, count: int) -> Tensor:
    """Seeds (B · count,) of the tiles of pictures with `seeds` (B,), those of one picture together."""
    return (seeds[:, None] ^ (torch.arange(count, device=seeds.device) << _TILE_BIT)).flatten()


def seeds_of_sums(seeds: Tensor, count: int) -> Tensor:
    """Seeds (B, count) of pictures with `seeds` (B,) under each of `count` overlays, none of them the picture's own."""
    return seeds[:, None] ^ torch.arange(1, count + 1, device=seeds.device)


def uniform(seeds: Tensor, count: int) -> Tensor:
    """Numbers (B, count) float64 in [0, 1), from Philox-4x32-10 under the two words of each of `seeds` (B,) int64."""
    words = philox(torch.stack((seeds & _WORD, seeds >> 32 & _WORD), dim=1), -(-count // 4))
    return words.flatten(1)[:, :count].double() / 2**32


def in_range(result: Tensor, pictures: Tensor) -> Tensor:
    """`result` (B, C, H, W) clamped to [0, 1], or up to the maximum of its picture where that is larger."""
    return result.clamp_min(0).minimum(pictures.detach().amax((1, 2, 3), keepdim=True).clamp_min(1))
