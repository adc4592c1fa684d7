"""STRIP's ability to separate poisoned frames from clean ones: false rejections, false acceptances, passes and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.statistics import wilson
from lab.strip.calibrate import AT_ONCE, strip_inputs
from processors.bundle import StripThreshold
from processors.pipeline import Pipeline
from schemas.errors import ConfigError


@dataclass(frozen=True)
class Checked:
    """Results for n frames: `verdict`, true `label`, `bits` of STRIP, `passes` and `flagged`, all (n,)."""

    verdict: NDArray[np.int64]
    label: NDArray[np.int64]
    bits: NDArray[np.float64]
    passes: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    seconds: float
    """Seconds of STRIP, without the drop and the classification."""


def threshold_for(pipeline: Pipeline, dropped_per_block: int, drop: float) -> StripThreshold:
    """Return the bundle's threshold. Raises ConfigError with the command that sets it if there is none."""
    strip = pipeline.bundle.settings.strip
    found = None if strip is None else strip.threshold(dropped_per_block)
    if found is None:
        what = f"frames with a drop ratio of {drop:g}" if dropped_per_block else "whole frames"
        option = f" --drop-ratio {drop:g}" if dropped_per_block else ""
        raise ConfigError(
            f"bundle {pipeline.bundle.settings.name}: expected a STRIP threshold for {what}, got none. "
            f"Run pointillist lab calibrate --bundle DIR --clean FILE{option}."
        )
    return found


@torch.inference_mode()
def check(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    dropped_per_block: int = 0,
    *,
    sequential: bool = False,
    seed: int = 1,
    advance: Callable[[int], object] = lambda count: None,
) -> Checked:
    """Return the results of STRIP and the classifier on pictures, after dropping `dropped_per_block` pixels.

    The default `seed` differs from the calibration's, so no frame is judged with the masks of its calibration.
    """
    verdicts, labels, bits, passes, flagged = [], [], [], [], []
    seconds = 0.0
    cuda = pipeline.bundle.device.type == "cuda"
    for inputs, verdict, label, seeds in strip_inputs(pipeline, pictures, dropped_per_block, seed):
        verdicts.append(verdict)
        labels.append(label)
        for first in range(0, len(inputs), AT_ONCE):
            some = inputs[first : first + AT_ONCE]
            own = None if seeds is None else seeds[first : first + AT_ONCE]
            start = time.perf_counter()
            found = pipeline.strip(some, dropped_per_block, seeds=own, sequential=sequential)
            if cuda:
                torch.cuda.synchronize()
            seconds += time.perf_counter() - start
            bits.append(found.entropy_bits.double())
            passes.append(found.passes)
            flagged.append(found.flagged)
            advance(len(some))
    verdict_of, label_of, bits_of, passes_of, flagged_of = (
        torch.cat(parts).cpu().numpy() for parts in (verdicts, labels, bits, passes, flagged)
    )
    return Checked(verdict_of, label_of, bits_of, passes_of, flagged_of, seconds)


def target_class(poisoned: Checked) -> int:
    """Return the class of most misclassified poisoned frames; -1 if none is misclassified."""
    wrong = poisoned.verdict[poisoned.verdict != poisoned.label]
    return int(np.bincount(wrong).argmax()) if len(wrong) else -1


def strip_figures(clean: Checked, poisoned: Checked) -> dict[str, Any]:
    """Return shares with their Wilson intervals of 95 %; see `pointillist lab strip`."""
    target = target_class(poisoned)
    others = poisoned.label != target
    missed = ~poisoned.flagged
    reached = poisoned.verdict == target
    shares = {
        "attack_success": reached[others],
        "frr": clean.flagged,
        "far": missed,
        "far_effective": missed[reached],
    }
    figures: dict[str, Any] = {name: float(values.mean()) if len(values) else None for name, values in shares.items()}
    return figures | {
        "mean_passes": float(clean.passes.mean()),
        "seconds": clean.seconds + poisoned.seconds,
        "target_class": None if target < 0 else target,
        "counts": {name: len(values) for name, values in shares.items()},
        "intervals": {
            name: list(wilson(int(values.sum()), len(values))[1:]) for name, values in shares.items() if len(values)
        },
    }
