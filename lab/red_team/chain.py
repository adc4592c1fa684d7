"""The fleet's chain for attackers with different knowledge of a frame's draws.

A frame draws its mask and, if the bundle has random stages, a seed. Both follow from the camera's key. A known draw is
the same for every frame: attacks skip finished frames, so a known draw must not depend on the place in a batch.
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
    """Masks (B, 1, H, W) bool, True for kept pixels, and the stages' seeds (B,), None if no stage draws."""

    kept: Tensor
    seeds: Tensor | None


Drawing = Callable[[Tensor, torch.Generator], Draw]
"""A function from frames (B, C, H, W) and a CPU generator to the draws of those frames."""


def unknown(bundle: Bundle, ratio: float) -> Drawing:
    """Return a drawing with fresh draws for every frame and every call."""

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        count, (height, width) = len(frames), frames.shape[2:]
        kept = random_masks(count, height, width, ratio, generator).to(frames.device)
        return Draw(kept, bundle.seeds(count, generator))

    return draw


def few(bundle: Bundle, ratio: float, seed: int, count: int) -> Drawing:
    """Return a drawing of one of `count` draws that follow from `seed`. With a count of 1, the attacker knows it."""

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        height, width = frames.shape[2:]
        known = torch.Generator().manual_seed(seed)
        masks, seeds = random_masks(count, height, width, ratio, known), bundle.seeds(count, known)
        chosen = torch.randint(count, (len(frames),), generator=generator)
        kept = masks[chosen].to(frames.device)
        return Draw(kept, None if seeds is None else seeds[chosen.to(seeds.device)])

    return draw


def known_masks(bundle: Bundle, ratio: float, seed: int) -> Drawing:
    """Return a drawing of one mask that follows from `seed`, and fresh seeds of the stages."""
    masked = few(bundle, ratio, seed, 1)

    def draw(frames: Tensor, generator: torch.Generator) -> Draw:
        return Draw(masked(frames, generator).kept, bundle.seeds(len(frames), generator))

    return draw


def chain(pipeline: Pipeline, drawing: Drawing) -> Defended:
    """Return drop, reconstruction, stages and network as one function, with those draws."""

    def behind(frames: Tensor, generator: torch.Generator) -> Tensor:
        kept, seeds = drawing(frames, generator)
        return pipeline.logits(drop(frames, kept), kept, seeds)

    return behind


def shown(pipeline: Pipeline, drawing: Drawing) -> Baseline:
    """Return the chain without its network, as a baseline defence: frames to the network's input."""

    def clean(frames: Tensor, generator: torch.Generator) -> Tensor:
        kept, seeds = drawing(frames, generator)
        return pipeline.bundle.preprocess(pipeline.network_input(drop(frames, kept), kept)[0], seeds)

    return clean


def one_draw(each: Defended, seed: int) -> Defended:
    """Return `each` with fixed randomness per picture, whatever the batch: pictures are processed one at a time."""

    def without_chance(frames: Tensor, generator: torch.Generator) -> Tensor:
        alone = [each(frame[None], torch.Generator(generator.device).manual_seed(seed)) for frame in frames]
        return torch.cat(alone)

    return without_chance
