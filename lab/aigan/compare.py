"""A comparison of one generator with PGD on test pictures: success, time and bound, in one run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from lab.aigan.measure import attack, bare, frames_of, pgd, require_fit, targets_for, verdicts
from lab.aigan.run import generator_name
from lab.aigan.shipping import Attacker, shipped_generator
from lab.aigan.tasks import task_of
from lab.statistics import wilson
from processors.bundle import load_bundle
from schemas.errors import ConfigError


def compare(
    dataset: str,
    images: int,
    *,
    data: Path | None,
    black_box: bool = False,
    generator: Path | None = None,
    eps: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the figures for the first `images` test pictures.

    `generator` is a folder; by default it is the shipped one.
    """
    if eps is not None and not (math.isfinite(eps) and 0 < eps <= 1):
        raise ConfigError(f"--eps: expected a bound above 0 and up to 1, got {eps}")
    task = task_of(dataset)
    task.recipe(black_box)
    attacker = Attacker(generator or shipped_generator(generator_name(task, black_box)))
    bundle = load_bundle(task.target(), torch.device("cpu"))
    pictures = task.judged(data, images)
    require_fit(attacker, bundle, pictures)
    bound = attacker.settings.eps if eps is None else eps
    frames, classes = frames_of(pictures), len(bundle.settings.classes)
    targets = targets_for(pictures.labels, classes, seed)
    made = attack(attacker, frames, targets, bound)
    by_pgd = pgd(bare(bundle), frames, pictures.labels, targets, bound, seed)
    seen, seen_pgd, clean = (verdicts(bare(bundle), each) for each in (made.frames, by_pgd.frames, frames))
    share = wilson(int((seen == targets).sum()), len(pictures))
    return {
        "targeted_success": share.value,
        "targeted_success_low": share.low,
        "targeted_success_high": share.high,
        "accuracy": float((seen == pictures.labels).mean()),
        "clean_accuracy": float((clean == pictures.labels).mean()),
        "seconds": made.seconds,
        "pgd40_seconds": by_pgd.seconds,
        "pgd40_targeted_success": float((seen_pgd == targets).mean()),
        "l_inf": made.l_inf,
        "eps": bound,
        "images": len(pictures),
        "settings": {
            "generator": attacker.settings.name, "knowledge": attacker.settings.knowledge,
            "trained_against": attacker.settings.bundle, "bundle": bundle.model_id, "data": pictures.name,
            "seed": seed, "threads": torch.get_num_threads(),
        },
    }  # fmt: skip
