"""Table 1: the difference between two outputs for one picture, and the accuracy on clean pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from lab.baselines import Baseline
from lab.cache import Arrays, Cache, digest
from lab.experiments.cells import right
from lab.experiments.preprocessing.defences import Function
from lab.experiments.preprocessing.subjects import Shown, Subject
from lab.provenance import made_by
from lab.statistics import share_interval


@dataclass(frozen=True)
class VarianceRow:
    """Means over n pictures between two outputs of a function, or between it and an imitation."""

    subject: str
    defence: str
    n: int
    l2: float
    """Root of the mean squared difference."""
    ssim: float
    accuracy: float
    ci_low: float
    ci_high: float


def variance_row(
    subject: Subject, function: Function, shown: Shown, cache: Cache, beside: Baseline | None
) -> VarianceRow:
    """Return the row of `function` on the first 100 pictures of `shown`, with a baseline for comparison if given."""
    name = function.name if beside is None else f"{function.name} and its auto-encoder"
    made_from = digest(subject.made_from(), function.made_from, len(shown), beside is None, made_by(__name__))

    def measure() -> Arrays:
        generator = torch.Generator().manual_seed(subject.seed + 11)
        part = shown.frames[:100]
        with torch.inference_mode():
            one = function.forward(part, generator)
            two = (beside or function.forward)(part, generator).clamp(0, 1)
            correct = np.stack(
                [_correct(subject, function, shown, generator) for _ in range(5 if function.random else 1)]
            )
        l2 = (one - two).flatten(1).square().mean(1).sqrt().numpy().astype(np.float64)
        return {"l2": l2, "ssim": _ssim(one, two), "correct": correct}

    found = cache.get(f"{subject.name}/variance/{name.replace(' ', '-')}", made_from, measure)
    accuracy = share_interval(found["correct"].astype(bool))
    l2, ssim = float(found["l2"].mean()), float(found["ssim"].mean())
    return VarianceRow(subject.name, name, len(shown), l2, ssim, accuracy.value, accuracy.low, accuracy.high)


def _correct(subject: Subject, function: Function, shown: Shown, generator: torch.Generator) -> NDArray[np.bool_]:
    defended = function.before(subject.logits)
    return right(defended, shown.frames, shown.labels, generator)


def _ssim(one: Tensor, two: Tensor) -> NDArray[np.float64]:
    """Return the structural similarity (Wang et al. 2004) of each pair of frames (B, C, H, W) in [0, 1]: (B,)."""
    pairs = zip(one.numpy(), two.numpy(), strict=True)
    every = [
        structural_similarity(a, b, channel_axis=0, data_range=1.0)  # type: ignore[no-untyped-call]  # not annotated
        for a, b in pairs
    ]
    return np.array(every)
