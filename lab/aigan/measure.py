"""The success rate of a shipped generator, and its time relative to PGD's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.aigan.shipping import WITHIN, Attacker, Frames
from lab.attacks import random_targets
from lab.attacks.contract import Logits
from lab.data import LabelledPictures
from processors.bundle import Bundle
from schemas.errors import ConfigError

GAINS: Final = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Gains of a sharpened direction. The first is the generator's own."""
AT_ONCE: Final = 250
"""Batch size of the network and of the generator."""
PASSES: Final = 5
PGD_STEPS: Final = 40


@dataclass(frozen=True)
class Attacked:
    """The generator's changed pictures (N, C, h, w), and the time that they took."""

    frames: Frames
    targets: NDArray[np.int64]
    seconds: float
    l_inf: float
    """The largest change of any value, on the scale [0, 1]."""


def targets_for(labels: NDArray[np.int64], classes: int, seed: int) -> NDArray[np.int64]:
    """Return another class for each of `labels` (N,), drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return random_targets(torch.from_numpy(labels), classes, generator).numpy()


def frames_of(pictures: LabelledPictures) -> Frames:
    """Return the pictures as (N, C, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(pictures.images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


def attack(attacker: Attacker, frames: Frames, targets: NDArray[np.int64], eps: float | None = None) -> Attacked:
    """Attack `frames` (N, C, h, w) in [0, 1] in batches. The clock starts after one warm-up run of the model.

    The attack is repeated `PASSES` times and the median time counts. One pass takes a fraction of a second, so other
    load on the machine would distort a single one.
    """
    batches = [slice(start, start + AT_ONCE) for start in range(0, len(frames), AT_ONCE)]
    attacker(frames[batches[0]], targets[batches[0]], eps)
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        made = [attacker(frames[part], targets[part], eps) for part in batches]
        seconds.append(time.perf_counter() - started)
    together = np.concatenate(made)
    return Attacked(together, targets, median(seconds), float(np.abs(together.astype(np.float64) - frames).max()))


def sharpened(attacker: Attacker, frames: Frames, targets: NDArray[np.int64], gain: float) -> Frames:
    """Return attacked pictures whose direction is multiplied by `gain` and clipped to [−1, 1] again.

    The generator ends in tanh, which leaves a part of the bound unused.
    """
    reach, made = np.float32(attacker.settings.eps * WITHIN), []
    for start in range(0, len(frames), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        direction = np.clip(np.float32(gain) * attacker.direction(frames[part], targets[part]), -1, 1)
        made.append(np.clip(frames[part] + reach * direction, 0, 1))
    return np.concatenate(made)


def pgd(
    logits: Logits,
    frames: Frames,
    labels: NDArray[np.int64],
    targets: NDArray[np.int64],
    eps: float,
    seed: int,
    steps: int = PGD_STEPS,
) -> Attacked:
    """Attack the same batches by PGD through `logits`. The clock starts after one warm-up step. One step is FGSM.

    Steps have the length 2.5 ε ÷ `steps` and begin at a random point, as everywhere in the lab. FGSM starts at the
    picture.
    """
    # Foolbox takes seconds to import.
    from lab.attacks.gradient_sign import GradientDescent

    reach = eps * WITHIN
    once = GradientDescent("fgsm", reach, "linf", 1, 1.0, random_start=False)
    descent = GradientDescent("pgd", reach, "linf", steps, 2.5 / steps, random_start=True) if steps > 1 else once
    generator = torch.Generator().manual_seed(seed)
    given, truth, wanted = torch.from_numpy(frames), torch.from_numpy(labels), torch.from_numpy(targets)
    once(logits, given[:AT_ONCE], truth[:AT_ONCE], wanted[:AT_ONCE], generator)
    batches = [slice(start, start + AT_ONCE) for start in range(0, len(frames), AT_ONCE)]
    started = time.perf_counter()
    made = [descent(logits, given[part], truth[part], wanted[part], generator) for part in batches]
    seconds = time.perf_counter() - started
    together = torch.cat(made).numpy()
    return Attacked(together, targets, seconds, float(np.abs(together.astype(np.float64) - frames).max()))


@torch.inference_mode()
def verdicts(logits: Callable[[Tensor], Tensor], frames: Frames) -> NDArray[np.int64]:
    """Return the predicted class (N,) of each of `frames` (N, C, H, W)."""
    parts = [
        logits(torch.from_numpy(frames[start : start + AT_ONCE])).argmax(1).numpy()
        for start in range(0, len(frames), AT_ONCE)
    ]
    return np.concatenate(parts)


def bare(bundle: Bundle) -> Logits:
    """Return the network of a bundle without any stage before it."""
    return lambda frames: bundle.logits(bundle.prepare(frames))


def require_fit(attacker: Attacker, bundle: Bundle, pictures: LabelledPictures) -> None:
    """Raise ConfigError if a generator does not match the pictures or the classes that it is to attack."""
    made, wanted = attacker.settings, bundle.settings
    shape = (made.height, made.width, made.channels)
    if pictures.images.shape[1:] != shape:
        raise ConfigError(f"generator {made.name}: expected pictures of {shape}, got {pictures.images.shape[1:]}")
    if made.classes != wanted.classes:
        raise ConfigError(
            f"generator {made.name}: expected its {len(made.classes)} classes in {wanted.name}, got {wanted.classes}"
        )
