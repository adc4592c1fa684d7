"""The defences of the network that classifies attacked pictures: none, or the fleet's drop and reconstruction.

The attacker is the paper's (section V-E): trained on the bare network, and unaware of any defence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lab.aigan.measure import bare
from lab.masks import random_masks
from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import BundleError

DROP: Final = 0.25
"""The fleet's usual share of dropped pixels."""
NOTHING: Final = "none"
HARDENED: Final = {"cifar10": "cifar10-hardened", "scene": "scene"}
"""Shipped bundles of the same classes that were trained against attacks."""


@dataclass(frozen=True)
class Defence:
    """A name for the tables, and a function that builds the judge.

    The judge maps frames (B, C, H, W) in [0, 1] to logits (B, classes) and always starts from the same seed.
    """

    name: str
    model_id: str
    judge: Callable[[], Callable[[Tensor], Tensor]]


def defences(task: str, target: Bundle, seed: int) -> list[Defence]:
    """Return no defence and the drop, for the target and for a hardened network if there is one."""
    found = [Defence(NOTHING, target.model_id, lambda: bare(target)), dropped("drop and reconstruction", target, seed)]
    try:
        hardened = load_bundle(shipped_bundle(HARDENED[task]), target.device)
    except (KeyError, BundleError):
        return found
    if hardened.model_id == target.model_id:
        return found
    return [
        *found,
        Defence("adversarially trained network", hardened.model_id, lambda: bare(hardened)),
        dropped("drop, reconstruction and that network", hardened, seed),
    ]


def dropped(name: str, bundle: Bundle, seed: int) -> Defence:
    """Return the live chain with masks unknown to the attacker."""
    pipeline = Pipeline(bundle)

    def judge() -> Callable[[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def logits(frames: Tensor) -> Tensor:
            count, _, height, width = frames.shape
            kept = random_masks(count, height, width, DROP, generator)
            return pipeline.logits(drop(frames, kept), kept)

        return logits

    return Defence(name, bundle.model_id, judge)
