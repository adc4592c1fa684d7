"""The pictures that a judge classifies correctly with a defence: measured once, cached, and summarised as rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lab.cache import Arrays, Cache, digest
from lab.data import batch_slices, to_frames
from lab.experiments.super_iot.defences import Defence
from lab.experiments.super_iot.judges import Adversarial, Judge
from lab.experiments.super_iot.plan import AttackRow
from lab.experiments.super_iot.rows import Row
from lab.provenance import made_by
from lab.restoration.psnr import psnr_db
from lab.statistics import share_interval


@dataclass(frozen=True)
class Outcome:
    """One outcome: `correct` (repeats, n) bool, and `psnr` (n,) dB of the repaired frame, mean over repeats."""

    correct: NDArray[np.bool_]
    psnr: NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """The input of the defences: the first `count` pictures of a judge under an attack."""

    judge: Judge
    row: AttackRow
    pictures: Adversarial
    count: int
    rounded: bool

    def distances(self) -> tuple[float, float]:
        """Return the means over the pictures of the L∞ and L2 norm of the attack's change."""
        device, linf, l2 = torch.device("cpu"), [], []
        for part in batch_slices(self.count, *self.judge.pictures.images.shape[1:3]):
            change = self.pictures.frames(part, self.rounded, device)
            change = (change - to_frames(self.judge.pictures.images[part], device)).flatten(1)
            linf.append(change.abs().amax(1))
            l2.append(change.norm(dim=1))
        return float(torch.cat(linf).mean()), float(torch.cat(l2).mean())


def outcome(shown: Shown, defence: Defence, seed: int, cache: Cache) -> Outcome:
    """Return the judge's answers with a defence, from the cache if available."""
    rounding = "rounded" if shown.rounded else "unrounded"
    name = f"{shown.judge.name}/outcomes/{shown.row.id}-{rounding}-{shown.count}-{defence.id}"
    made_from = digest(
        shown.pictures.made_from, shown.count, shown.rounded, defence.made_from, defence.repeats, seed,
        made_by(__name__),
    )  # fmt: skip
    found = cache.get(name, made_from, lambda: _measure(shown, defence, seed))
    return Outcome(found["correct"].astype(np.bool_), found["psnr"].astype(np.float64))


@torch.inference_mode()
def _measure(shown: Shown, defence: Defence, seed: int) -> Arrays:
    judge, device = shown.judge, shown.judge.bundle.device
    correct = np.zeros((defence.repeats, shown.count), np.bool_)
    psnr = np.zeros((defence.repeats, shown.count))
    for repeat in range(defence.repeats):
        # All attacks use the same draws of a defence: their differences are for the same masks.
        generator = torch.Generator().manual_seed(seed + 1000 * (repeat + 1))
        for part in batch_slices(shown.count, *judge.pictures.images.shape[1:3]):
            frames = shown.pictures.frames(part, shown.rounded, device)
            repaired = defence.repair(frames, generator)
            labels = torch.from_numpy(judge.pictures.labels[part]).to(device)
            correct[repeat, part] = (judge.logits(repaired).argmax(1) == labels).cpu().numpy()
            clean = to_frames(judge.pictures.images[part], device)
            psnr[repeat, part] = psnr_db(repaired, clean).cpu().numpy()
    return {"correct": correct, "psnr": psnr.mean(0)}


def summed_up(
    shown: Shown, defence: Defence, found: Outcome, bare: Outcome, distances: tuple[float, float], scope: str
) -> Row:
    """Return the row of one outcome, compared with the bare network on the same pictures and their `distances`."""
    broken = ~bare.correct[0]
    accuracy = share_interval(found.correct)
    attacked = shown.row.key != "clean"
    restored = share_interval(found.correct[:, broken]) if attacked and broken.any() else None
    linf, l2 = distances
    return Row(
        judge=shown.judge.name,
        scope=scope,
        attack=shown.row.key,
        label=shown.row.label,
        targeted=shown.row.targeted,
        rounded=shown.rounded,
        defence=defence.name,
        r=defence.ratio,
        repeats=defence.repeats,
        n=shown.count,
        accuracy=accuracy.value,
        ci_low=accuracy.low,
        ci_high=accuracy.high,
        undefended=float(bare.correct.mean()),
        restored=None if restored is None else restored.value,
        restored_low=None if restored is None else restored.low,
        restored_high=None if restored is None else restored.high,
        l_inf=linf,
        l2=l2,
        psnr=float(found.psnr.mean()),
    )
