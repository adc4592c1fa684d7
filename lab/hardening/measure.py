"""A quick, strong evaluation of a bundle with the pixel drop: clean, and under EOT-PGD without the key only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from lab.attacks import to_8_bits
from lab.attacks.defences import defended
from lab.attacks.eot import eot_pgd
from lab.attacks.resubmission import resubmitted
from lab.data import LabelledPictures
from processors.bundle import Bundle
from processors.pipeline import Pipeline

STEPS: Final = 20
SAMPLES: Final = 5
RESUBMISSIONS: Final = 10
"""Submissions of each attacked frame. Every answer must be correct."""


@dataclass(frozen=True)
class Shares:
    """Accuracies over `count` frames: `clean` by the first answer, and under attack by every answer."""

    clean: float
    robust: float
    count: int


def measure(
    bundle: Bundle,
    pictures: LabelledPictures,
    *,
    eps: float,
    drop: float,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> Shares:
    """Return clean and robust accuracy on `pictures`. Attacked ones are rounded to 8 bits, as by a camera."""
    chain = defended(Pipeline(bundle), drop)
    generator = torch.Generator().manual_seed(seed)
    clean = robust = 0
    for frames, labels in pictures.batches(bundle.device):
        with torch.no_grad():
            clean += int((chain(frames, generator).argmax(1) == labels).sum())
        changed = to_8_bits(
            eot_pgd(chain, frames, labels, None, eps=eps, steps=STEPS, samples=SAMPLES, generator=generator)
        )
        robust += int(resubmitted(chain, changed, labels, times=RESUBMISSIONS, generator=generator).sum())
        advance(len(labels))
    return Shares(clean / len(pictures), robust / len(pictures), len(pictures))
