"""Scenes under attacks of other kinds than `scene.withstood`, each alone.

Square needs no gradient, and AutoAttack for random defences chooses its own steps. If one of them left fewer scenes
than the attacks by margins, the gradients would mislead.
"""

from __future__ import annotations

import time
from typing import Final

import torch

from lab.attacks import to_8_bits
from lab.attacks.auto_attack import auto_attack
from lab.attacks.defences import defended
from lab.attacks.resubmission import resubmitted
from lab.attacks.square import square
from lab.data import to_frames
from lab.experiments.hardening.rows import AloneRow
from lab.experiments.hardening.scene import ADAPTED, DROP, KINDS, TIMES
from lab.experiments.scale.measure import scenes
from processors.bundle import Bundle
from processors.pipeline import Pipeline

FRAMES: Final = {"square": 300, "auto-attack": 50}
"""The attacks, and the number of scenes that each meets."""
SIZE: Final = (96, 128)
BOUNDS: Final = tuple((kind, eps) for kind, eps, size in ADAPTED if size == SIZE)[:4]
QUERIES: Final = 2_000
"""Answers that Square gets for a scene: two for each candidate."""
BATCH: Final = 25


def alone(bundle: Bundle, kind: str, eps: float, attack: str) -> AloneRow:
    """Scenes of a kind under `attack`, one of `FRAMES`."""
    begun, count = time.monotonic(), FRAMES[attack]
    pictures = scenes(count, SIZE, KINDS[kind])
    chain = defended(Pipeline(bundle), DROP)
    chance = torch.Generator().manual_seed(0)
    right = 0
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
        if attack == "square":
            changed = square(chain, frames, labels, None, eps=eps, queries=QUERIES, generator=chance)
        else:
            changed = auto_attack(chain, frames, labels, eps=eps, generator=chance, version="rand")
        right += int(resubmitted(chain, to_8_bits(changed), labels, times=TIMES, generator=chance).sum())
    seconds = time.monotonic() - begun
    return AloneRow(bundle.model_id, *SIZE, kind, eps, attack, count, right / count, seconds)
