"""The view of an adaptive attack: a whole defence as one function of frames and of the generator of its draws."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.attacks.contract import Defended, Logits
from lab.baselines import Baseline
from lab.masks import check_drop_ratio, random_masks
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import ConfigError


def defended(pipeline: Pipeline, share: float) -> Defended:
    """Return everything between a lens and a verdict as one function, for an unknown key.

    Each call draws fresh masks that drop `share`, and fresh seeds for the bundle's random stages. The generator must be
    on the CPU. The function is differentiable if the pipeline's stages are. A pipeline of `Bundle.passable` gives the
    same values, with the identity's gradient (BPDA) where a stage has none. Raises ConfigError for a share outside [0,
    0.875].
    """
    check_drop_ratio(share)

    def behind_fresh_masks(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, share, generator).to(frames.device)
        return pipeline.logits(drop(frames, kept), kept, pipeline.bundle.seeds(len(frames), generator))

    return behind_fresh_masks


def with_key(pipeline: Pipeline, kept: Tensor, seeds: Tensor | None = None) -> Defended:
    """Return the same function for an attacker who has the key, and so the masks and seeds.

    `kept` has shape (B, 1, H, W) bool, `seeds` (B,) int64. One mask (1, 1, H, W) and seed (1,) apply to any number of
    frames, for attacks that skip finished frames. Without seeds, random stages draw from the generator. Raises
    ConfigError for frames that do not fit.
    """

    def behind_known_masks(frames: Tensor, generator: torch.Generator) -> Tensor:
        if kept.shape[2:] != frames.shape[2:] or len(kept) not in (1, len(frames)):
            raise ConfigError(
                f"key: expected frames for the masks {tuple(kept.shape)}, or a single mask, got {tuple(frames.shape)}"
            )
        known = kept.to(frames.device).expand(len(frames), -1, -1, -1)
        drawn = pipeline.bundle.seeds(len(frames), generator) if seeds is None else seeds.expand(len(frames))
        return pipeline.logits(drop(frames, known), known, drawn)

    return behind_known_masks


def fixed(each: Defended, seed: int) -> Defended:
    """Return `each` with fixed randomness: every call draws the same, by the index of a frame in its batch."""

    def without_chance(frames: Tensor, generator: torch.Generator) -> Tensor:
        return each(frames, torch.Generator(generator.device).manual_seed(seed))

    return without_chance


def behind(baseline: Baseline, logits: Logits) -> Defended:
    """Return a network with a baseline defence. If the defence has no useful gradient, wrap it in `bpda` first."""
    return lambda frames, generator: logits(baseline(frames, generator))


def undefended(bundle: Bundle) -> Defended:
    """Return the network of a bundle on whole frames, for an attacker who is unaware of the defence."""
    bare = bundle.bare
    return lambda frames, generator: bare.logits(bare.prepare(frames))
