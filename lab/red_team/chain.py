"""The fleet's chain as attackers of various knowledge meet it: what of a frame's draws they know.

A frame draws its mask and, where the bundle has random stages, a seed; both follow from the camera's key. Who knows a
draw is given the same one for every frame: attacks leave out frames that are done, so a known draw must not go by the
place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lab.attacks.contract import Defended
from lab.baselines import Baseline
from lab.masks import random_masks
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop


class Draw(NamedTuple):
    """Masks (B, 1, H, W) bool, True where a pixel is kept, and the stages' seeds (B,), None where none draws."""

    kept: Tensor
    seeds: Tensor | None


Drawing = Callable[[Tensor, torch.Generator], Draw]
"""Frames (B, C, H, W) and a generator of the CPU to what those frames draw."""


def unknown(bundle: Bundle, ratio: float) -> Drawing:
    """Fresh draws for every frame and every look."""

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        count, (height, width) = len(frames), frames.shape[2:]
        kept = random_masks(count, height, width, ratio, generator).to(frames.device)
        return Draw(kept, bundle.seeds(count, generator))

    return draw


def few(bundle: Bundle, ratio: float, seed: int, count: int) -> Drawing:
    """One of `count` draws that follow from `seed`: with one, the attacker knows them all."""

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        height, width = frames.shape[2:]
        known = torch.Generator().manual_seed(seed)
        masks, seeds = random_masks(count, height, width, ratio, known), bundle.seeds(count, known)
        chosen = torch.randint(count, (len(frames),), generator=generator)
        kept = masks[chosen].to(frames.device)
        return Draw(kept, None if seeds is None else seeds[chosen.to(seeds.device)])

    return draw


def known_masks(bundle: Bundle, ratio: float, seed: int) -> Drawing:
    """One mask that follows from `seed`, and fresh seeds of the stages."""
    masked = few(bundle, ratio, seed, 1)

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        return Draw(masked(frames, generator).kept, bundle.seeds(len(frames), generator))

    return draw


def chain(pipeline: Pipeline, drawing: Drawing) -> Defended:
    """Drop, reconstruction, stages and network, with those draws."""

    def behind(frames: Tensor, generator: torch.Generator) -> Tensor:
        kept, seeds = drawing(frames, generator)
        return pipeline.logits(drop(frames, kept), kept, seeds)

    return behind


def shown(pipeline: Pipeline, drawing: Drawing) -> Baseline:
    """What the network is shown of frames: the chain without it, as something that cleans pictures."""

    def clean(frames: Tensor, generator: torch.Generator) -> Tensor:
        kept, seeds = drawing(frames, generator)
        return pipeline.bundle.preprocess(pipeline.see(drop(frames, kept), kept)[0], seeds)

    return clean


def one_draw(each: Defended, seed: int) -> Defended:
    """`each` with every picture's randomness fixed, whichever pictures come beside it: they are shown one at a time."""

    def without_chance(frames: Tensor, generator: torch.Generator) -> Tensor:
        alone = [each(frame[None], torch.Generator(generator.device).manual_seed(seed)) for frame in frames]
        return torch.cat(alone)

    return without_chance
