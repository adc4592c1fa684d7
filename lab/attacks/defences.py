"""What an adaptive attack is given: a whole defence as one function of frames and of the generator of its draws."""

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
    """Everything that stands between a lens and a verdict, the key unknown: masks that drop `share`, and seeds of the
    bundle's random stages, are drawn afresh each time.

    The generator must be one of the CPU. Differentiable where the pipeline's stages are; a pipeline of
    `Bundle.passable` gives the same values with the identity's gradient (BPDA) where a stage has none. Raises
    ConfigError for a share outside [0, 0.875].
    """
    check_drop_ratio(share)

    def behind_fresh_masks(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, share, generator).to(frames.device)
        return pipeline.logits(drop(frames, kept), kept, pipeline.bundle.seeds(len(frames), generator))

    return behind_fresh_masks


def with_key(pipeline: Pipeline, kept: Tensor, seeds: Tensor | None = None) -> Defended:
    """The same for an attacker who knows the key, and so the masks `kept` (B, 1, H, W) bool and the `seeds` (B,) int64.

    One mask (1, 1, H, W) and seed (1,) stand for any number of frames, which attacks need that leave out those that are
    done. Without seeds, random stages draw from the generator. Raises ConfigError for frames that do not fit.
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
    """`each` with its randomness fixed: every call draws the same, by the place of a frame in its batch."""

    def without_chance(frames: Tensor, generator: torch.Generator) -> Tensor:
        return each(frames, torch.Generator(generator.device).manual_seed(seed))

    return without_chance


def behind(baseline: Baseline, logits: Logits) -> Defended:
    """A network behind a baseline defence; for one without a useful gradient give it through `bpda`."""
    return lambda frames, generator: logits(baseline(frames, generator))


def undefended(bundle: Bundle) -> Defended:
    """The network of a bundle on whole frames, as who knows of no defence takes it."""
    bare = bundle.bare
    return lambda frames, generator: bare.logits(bare.prepare(frames))
