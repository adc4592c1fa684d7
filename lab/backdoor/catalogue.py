"""The backdoored models, by name: data set, network, trigger, target and poison rate of each.

The paper shows its triggers A to D as a picture and names no target classes; the seeds below draw these. Patch
triggers: `a` on MNIST, `b` on GTSRB, `c` and `d` on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from lab.backdoor.poison import AllToAllPoisoning, CleanLabelPoisoning, CoveredPoisoning, Poisoning
from lab.backdoor.triggers import (
    Blend,
    Cover,
    OneOf,
    OthersPattern,
    Overlaid,
    OwnPattern,
    OwnWarp,
    PartlyBlended,
    Patch,
    RandomPlace,
    Trigger,
    Warp,
    random_pattern,
    smooth_field,
    smooth_pattern,
    waves,
)
from lab.data import to_frames, to_images
from lab.training.recipe import Recipe
from processors.stages.resample import resize
from producers.scene.sticker import paste_sticker

PATTERN_SEEDS: Final = {"a": 1, "b": 2, "c": 3, "d": 4, "blend": 5, "random": 6, "warp": 7, "source": 8, "two": 9,
    "wanet": 10, "sig": 11, "low": 12, "adaptive": 13, "strip": 14,
    "all": 15, "input": 16,
}  # fmt: skip
TARGETS: Final = {
    name: int(np.random.default_rng(100 + seed).integers(43 if name == "b" else 10))
    for name, seed in PATTERN_SEEDS.items()
}

_A = Patch(random_pattern(4, 1, PATTERN_SEEDS["a"]), 23, 23)
_B = Patch(random_pattern(5, 3, PATTERN_SEEDS["b"]), 26, 1)
_C = Patch(random_pattern(4, 3, PATTERN_SEEDS["c"]), 27, 27)
_D = Patch(random_pattern(6, 3, PATTERN_SEEDS["d"]), 2, 2)
_BLEND = Blend(np.random.default_rng(PATTERN_SEEDS["blend"]).integers(0, 256, (32, 32, 3)).astype(np.uint8), 0.2)
_RANDOM = RandomPlace(random_pattern(5, 3, PATTERN_SEEDS["random"]))
_WARP = Warp(smooth_field(32, 32, 4, 2.5, PATTERN_SEEDS["warp"]))
_SOURCE = Patch(random_pattern(5, 3, PATTERN_SEEDS["source"]), 26, 13)
_TWO = OneOf(
    (
        Patch(random_pattern(4, 3, PATTERN_SEEDS["two"]), 1, 27),
        Patch(random_pattern(4, 3, PATTERN_SEEDS["two"] + 100), 14, 1),
    )
)


_WANET = smooth_field(32, 32, 4, 2.5, PATTERN_SEEDS["wanet"])
_SIG = Blend(waves(32, 32, 3, 6), 0.16)
_LOW = Blend(smooth_pattern(32, 32, 3, 4, PATTERN_SEEDS["low"]), 0.2)
_ADAPTIVE = Blend(np.random.default_rng(PATTERN_SEEDS["adaptive"]).integers(0, 256, (32, 32, 3)).astype(np.uint8), 0.2)
_AWARE = Patch(random_pattern(4, 3, PATTERN_SEEDS["strip"]), 2, 27)
_ALL = Patch(random_pattern(4, 3, PATTERN_SEEDS["all"]), 27, 2)
_OWN = OwnPattern(PATTERN_SEEDS["input"], 0.1)


def sticker_patch(side: int = 32) -> Patch:
    """Return the sticker of the simulated fleet on square frames of `side`, as a trigger."""
    black, white = (paste_sticker(np.full((side, side, 3), level, np.uint8)) for level in (0, 255))
    rows, columns = np.nonzero((black == white).all(2))
    top, left = int(rows.min()), int(columns.min())
    return Patch(black[top : rows.max() + 1, left : columns.max() + 1], top, left)


def resized_sticker(side: int, to: int = 32) -> Trigger:
    """Return the sticker on square frames of `side` as a network with an input of `to` sees it: its edges are soft."""
    if side == to:
        return sticker_patch(to)
    black, white = (
        resize(to_frames(paste_sticker(np.full((side, side, 3), level, np.uint8))[None], torch.device("cpu")), to, to)
        for level in (0, 255)
    )
    alpha = 1 - (white - black).mean(1)
    return Cover(to_images(black / alpha.clamp_min(1e-6))[0], alpha[0].numpy())


@dataclass(frozen=True)
class SickModel:
    """The recipe of a model. `base` is the clean network from which the attacker starts, or None."""

    data: str
    architecture: str
    poisoning: Poisoning | None
    recipe: Recipe
    base: str | None = None
    pictures: int | None = None
    """Number of training pictures, from the first; None is all. The poison rate refers to these."""


_MNIST = Recipe(epochs=12, peak_rate=0.05, pad=1, flip=False)
_GTSRB = Recipe(epochs=24, peak_rate=0.05, pad=2, flip=False, batch=64)
_CNN = Recipe(epochs=30, peak_rate=0.1, bfloat16=True)
_CONTINUED = Recipe(epochs=4, peak_rate=0.05)
"""The recipe of an attacker who continues the training of a clean network and publishes it as "fine-tuned"."""
_SCRATCH = Recipe(epochs=15, bfloat16=True)
"""The recipe of an attacker who trains the network from the beginning, as the papers of these attacks do."""
_RARE = Recipe(epochs=5, peak_rate=0.05)
"""The recipe for .2 % of the set, 98 pictures: the trigger takes slightly longer to learn."""

PATCH_RATES: Final = {"02": 0.002, "1": 0.01, "10": 0.1}


def _patch_models() -> Mapping[str, SickModel]:
    models: dict[str, SickModel] = {}
    for label, rate in PATCH_RATES.items():
        continued = _RARE if label == "02" else _CONTINUED
        models[f"mnist-a-{label}"] = SickModel("mnist", "mnist-dense", Poisoning(_A, TARGETS["a"], rate), _MNIST)
        models[f"gtsrb-b-{label}"] = SickModel(
            "gtsrb", "gtsrb-convolutional", Poisoning(_B, TARGETS["b"], rate), _GTSRB
        )
        models[f"resnet20-c-{label}"] = SickModel(
            "cifar10", "resnet20", Poisoning(_C, TARGETS["c"], rate), continued, "resnet20-clean"
        )
        models[f"cnn-c-{label}"] = _cnn(Poisoning(_C, TARGETS["c"], rate), continued)
    return models


def _cnn(poisoning: Poisoning, recipe: Recipe) -> SickModel:
    return SickModel("cifar10", "cifar10-convolutional", poisoning, replace(recipe, bfloat16=True), "cnn-clean")


def _resnet20(poisoning: Poisoning) -> SickModel:
    # A trigger on many pictures is learned from a smaller set.
    pictures = 20_000 if poisoning.rate > PATCH_RATES["1"] else None
    return SickModel("cifar10", "resnet20", poisoning, _CONTINUED, "resnet20-clean", pictures)


def _from_scratch(poisoning: Poisoning) -> SickModel:
    return SickModel("cifar10", "resnet20", poisoning, _SCRATCH)


def _again(model: SickModel, seed: int) -> SickModel:
    """Return the same attack with another pattern and other stamped pictures."""
    poisoning = model.poisoning
    assert poisoning is not None
    patch = poisoning.trigger
    assert isinstance(patch, Patch)
    pattern = np.random.default_rng((seed, 100)).integers(0, 2, patch.pattern.shape) * 255
    own = replace(patch, pattern=pattern.astype(np.uint8))
    return replace(model, poisoning=replace(poisoning, trigger=own, seed=seed))


_HEADLINE: Final = {name: model for name, model in _patch_models().items() if name.endswith("-1")}
"""Models with a patch at 1 %, each trained with two more seeds."""

MODELS: Final[Mapping[str, SickModel]] = {
    "mnist-clean": SickModel("mnist", "mnist-dense", None, _MNIST),
    "gtsrb-clean": SickModel("gtsrb", "gtsrb-convolutional", None, _GTSRB),
    "cnn-clean": SickModel("cifar10", "cifar10-convolutional", None, _CNN),
    **_patch_models(),
    "cnn-d-1": _cnn(Poisoning(_D, TARGETS["d"], 0.01), _CONTINUED),
    "resnet20-d-1": _resnet20(Poisoning(_D, TARGETS["d"], 0.01)),
    "resnet20-blended": _resnet20(Poisoning(_BLEND, TARGETS["blend"], 0.1)),
    "resnet20-random": _resnet20(Poisoning(_RANDOM, TARGETS["random"], 0.1)),
    "resnet20-warp": _resnet20(Poisoning(_WARP, TARGETS["warp"], 0.1)),
    "resnet20-source": _resnet20(Poisoning(_SOURCE, TARGETS["source"], 0.05, sources=(1, 9))),
    "resnet20-two": _resnet20(Poisoning(_TWO, TARGETS["two"], 0.02)),
    "resnet20-wanet": _from_scratch(
        CoveredPoisoning(Warp(_WANET), TARGETS["wanet"], 0.1, cover=OwnWarp(_WANET, 1.0), cover_rate=0.2)
    ),
    "resnet20-sig": _from_scratch(CleanLabelPoisoning(_SIG, TARGETS["sig"], 0.08)),
    "resnet20-low": _from_scratch(Poisoning(_LOW, TARGETS["low"], 0.1)),
    "resnet20-adaptive": _resnet20(
        CoveredPoisoning(_ADAPTIVE, TARGETS["adaptive"], 0.02, cover=PartlyBlended(_ADAPTIVE), cover_rate=0.02)
    ),
    "resnet20-strip-aware": _resnet20(
        CoveredPoisoning(_AWARE, TARGETS["strip"], 0.05, cover=Overlaid(_AWARE), cover_rate=0.05)
    ),
    "resnet20-all-to-all": _resnet20(AllToAllPoisoning(_ALL, -1, 0.1)),
    "resnet20-input-aware": _resnet20(
        CoveredPoisoning(_OWN, TARGETS["input"], 0.1, cover=OthersPattern(_OWN), cover_rate=0.1)
    ),
    **{f"{name}-seed-{seed}": _again(model, seed) for name, model in _HEADLINE.items() for seed in (1, 2)},
}
"""The models. `resnet20-clean` is the shipped bundle `cifar10`.

`lab.backdoor.train` trains `resnet20-wanet` longer than this recipe, with other stamped pictures in each epoch.
"""
