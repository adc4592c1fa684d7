"""A judge: a network that classifies pictures under attacks and defences, and is correct on them without either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import random_targets, to_8_bits
from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures, batch_slices, to_frames, to_images
from lab.experiments.super_iot.plan import AttackRow, Budget
from lab.provenance import made_by
from processors.bundle import Bundle
from schemas.errors import ConfigError

UNROUNDED_PICTURES: Final = 300
"""Number of a row's pictures that are also kept before rounding."""


@dataclass(frozen=True)
class Judge:
    """A bundle, and the pictures that its bare network classifies correctly, in the order of the data set.

    `targets` (N,) int64 holds a random other class for every picture, the same one for all attacks.
    """

    bundle: Bundle
    pictures: LabelledPictures
    targets: NDArray[np.int64]
    total: int
    """Number of examined pictures."""
    correct: int
    """Correctly classified pictures among these; `pictures` may be fewer."""

    @property
    def name(self) -> str:
        """The name in files and rows."""
        return self.bundle.settings.name

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits (B, classes) of frames (B, C, H, W), for an attacker who knows the network and no defence."""
        return self.bundle.logits(self.bundle.prepare(frames))

    def made_from(self) -> tuple[object, ...]:
        """Return the inputs on which the judge's results depend."""
        pixels = digest(self.pictures.images.tobytes(), self.pictures.labels.tobytes(), self.targets.tobytes())
        settings = self.bundle.settings.model_dump(exclude={"strip"})
        return (self.bundle.model_id, settings, pixels)


def judge_of(bundle: Bundle, pictures: LabelledPictures, seed: int, limit: int | None) -> Judge:
    """Return the first `limit` pictures that the network classifies correctly, with targets.

    Raises ConfigError if there is none.
    """
    correct = []
    with torch.inference_mode():
        for frames, labels in pictures.batches(bundle.device):
            correct.append((bundle.logits(bundle.prepare(frames)).argmax(1) == labels).cpu().numpy())
    positions = np.flatnonzero(np.concatenate(correct))
    if not len(positions):
        raise ConfigError(f"{bundle.model_id}: expected pictures that it classifies correctly, found none")
    generator = torch.Generator().manual_seed(seed)
    targets = random_targets(torch.from_numpy(pictures.labels), len(bundle.settings.classes), generator).numpy()
    chosen = positions[:limit]
    return Judge(bundle, pictures.take(chosen), targets[chosen], len(pictures), len(positions))


@dataclass(frozen=True)
class Adversarial:
    """A judge's pictures under one attack: (n, H, W, C) uint8, and the first frames before rounding."""

    images: NDArray[np.uint8]
    unrounded: NDArray[np.float32]
    """(m, C, H, W) in [0, 1]."""
    made_from: str

    def frames(self, part: slice, rounded: bool, device: torch.device) -> Tensor:
        """Return a batch (B, C, H, W) in [0, 1]."""
        if rounded:
            return to_frames(self.images[part], device)
        return torch.from_numpy(self.unrounded[part]).to(device)


def adversarial(judge: Judge, row: AttackRow, plan: Budget, cache: Cache) -> Adversarial:
    """Return the pictures of a row, attacked on the bare network if they are not in the cache.

    The clean row is unchanged.
    """
    count = len(judge.pictures.first(plan.pictures_of(row)))
    keep = min(count, UNROUNDED_PICTURES)
    made_from = digest(judge.made_from(), row, count, keep, plan.seed, made_by(__name__))
    if row.attack() is None:
        return Adversarial(judge.pictures.images[:count], np.zeros((0,), np.float32), made_from)
    found = cache.get(f"{judge.name}/attacked/{row.id}", made_from, lambda: _attack(judge, row, plan, count, keep))
    unrounded = found["unrounded"].astype(np.float32, copy=False)
    return Adversarial(found["images"].astype(np.uint8, copy=False), unrounded, made_from)


def _attack(judge: Judge, row: AttackRow, plan: Budget, count: int, keep: int) -> Arrays:
    attack = row.attack()
    assert attack is not None
    device = judge.bundle.device
    generator = torch.Generator().manual_seed(plan.seed + 1)
    rounded, unrounded = [], []
    for part in batch_slices(count, *judge.pictures.images.shape[1:3]):
        clean = to_frames(judge.pictures.images[part], device)
        labels = torch.from_numpy(judge.pictures.labels[part]).to(device)
        targets = torch.from_numpy(judge.targets[part]).to(device) if row.targeted else None
        found = attack(judge.logits, clean, labels, targets, generator).detach()
        rounded.append(to_images(to_8_bits(found)))
        if part.start < keep:
            unrounded.append(found[: keep - part.start].cpu().numpy())
    return {"images": np.concatenate(rounded), "unrounded": np.concatenate(unrounded)}
