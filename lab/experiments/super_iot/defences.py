"""The defences in front of the judge: the product's two modes at a drop ratio, or a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lab.cache import digest
from lab.masks import random_masks
from lab.provenance import made_by
from processors.networks.restorer import Restorer
from processors.pipeline import Pipeline
from processors.stages.denoise import denoise
from processors.stages.drop import drop
from processors.stages.learned import reconstruct_learned
from schemas.errors import ConfigError, first_line

Repair = Callable[[Tensor, torch.Generator], Tensor]
"""A function from frames (B, C, H, W) in [0, 1] and a CPU generator for all randomness to the judge's input."""

NONE: Final = "none"
DEFAULT: Final = "default"
PAPER: Final = "paper"
WITHOUT_ATTACKS: Final = "default trained without attacks"


@dataclass(frozen=True)
class Defence:
    """A method of repairing frames. `ratio` is None if it drops no pixels; `made_from` names its code and settings."""

    name: str
    ratio: float | None
    repeats: int
    repair: Repair
    made_from: str

    @property
    def id(self) -> str:
        """A name for files."""
        ratio = "" if self.ratio is None else f"-r{self.ratio:g}"
        return self.name.replace(" ", "-").replace("/", "-") + ratio


def undefended() -> Defence:
    """Return the bare network on the whole frame."""
    return Defence(NONE, None, 1, lambda frames, generator: frames, NONE)


def product(pipeline: Pipeline, ratio: float, repeats: int) -> Defence:
    """Return the drop with fresh masks and the pipeline's own reconstruction. The name is the pipeline's mode.

    Paper mode follows the paper where a fleet in this mode does not: uniformly random pixels of each block are dropped
    (equation 2), not spread ones, and VisuShrink precedes BayesShrink (section IV-D).
    """
    if pipeline.mode == PAPER:
        repair = _dropping(partial(_denoised_twice, pipeline), ratio, spread=False)
    else:
        repair = _dropping(pipeline.rebuild, ratio, spread=True)
    made_from = digest(pipeline.mode, pipeline.denoise, ratio, made_by(__name__))
    return Defence(pipeline.mode, ratio, repeats, repair, made_from)


@dataclass(frozen=True)
class OtherWeights:
    """The restorer with weights that do not ship; `made_from` is their digest."""

    network: Restorer
    made_from: str


def read_weights(file: Path, device: torch.device) -> OtherWeights:
    """Return weights of the restorer (safetensors). Raises ConfigError for another file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = Restorer()
    try:
        data = file.read_bytes()
        network.load_state_dict(load(data))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise ConfigError(f"{file}: expected weights of the learned reconstruction: {reason}") from None
    return OtherWeights(network.requires_grad_(False).eval().to(device), digest(data))


def without_attacks(weights: OtherWeights, pipeline: Pipeline, ratio: float, repeats: int) -> Defence:
    """Return the default with other weights of its network, trained without any attacked picture."""

    def rebuild(frames: Tensor, kept: Tensor) -> Tensor:
        restored = reconstruct_learned(frames, kept, weights.network)
        return denoise(restored, pipeline.denoise.method, pipeline.denoise.sigma)

    made_from = digest(weights.made_from, pipeline.denoise, ratio, made_by(__name__))
    return Defence(WITHOUT_ATTACKS, ratio, repeats, _dropping(rebuild, ratio, spread=True), made_from)


def _denoised_twice(pipeline: Pipeline, frames: Tensor, kept: Tensor) -> Tensor:
    """Return the reconstruction behind both of the paper's denoisers. The paper prints no σ: both get the mode's."""
    sigma = pipeline.denoise.sigma
    return denoise(denoise(pipeline.rebuild(frames, kept, denoised=False), "visu", sigma), "bayes", sigma)


def _dropping(rebuild: Callable[[Tensor, Tensor], Tensor], ratio: float, spread: bool) -> Repair:
    def repair(frames: Tensor, generator: torch.Generator) -> Tensor:
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, ratio, generator, spread).to(frames.device)
        return rebuild(drop(frames, kept), kept)

    return repair
