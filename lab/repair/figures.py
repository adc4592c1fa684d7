"""What a repair is judged by: clean accuracy, attack success, recovered accuracy, and the recovered trigger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import LabelledPictures, batch_slices, to_frames
from lab.repair.inputs import verdicts
from lab.repair.recovery import Trigger
from processors.bundle import Bundle

CHANGED: float = 2 / 255
"""A pixel that differs by more belongs to the trigger."""


@dataclass(frozen=True)
class Evaluation:
    """Pictures with their true classes that take no part in the repair: clean, and with the trigger; or None."""

    clean: LabelledPictures | None
    poisoned: LabelledPictures | None


def clean_accuracy(bundle: Bundle, pictures: LabelledPictures | None) -> float | None:
    """Share of `pictures` that the bundle names by their labels; None without any."""
    return None if pictures is None else float((_called(bundle, pictures) == pictures.labels).mean())


def attack_figures(bundle: Bundle, poisoned: LabelledPictures | None, target: int) -> tuple[float | None, float | None]:
    """Of stamped pictures of all classes but `target`: the share named the target, and the share named rightly."""
    if poisoned is None:
        return None, None
    others = poisoned.labels != target
    if not others.any():
        return None, None
    called = _called(bundle, poisoned)[others]
    return float((called == target).mean()), float((called == poisoned.labels[others]).mean())


def _called(bundle: Bundle, pictures: LabelledPictures) -> NDArray[np.int64]:
    frames = to_frames(pictures.images, bundle.device)
    called: NDArray[np.int64] = verdicts(bundle, frames).argmax(1).cpu().numpy()
    return called


def trigger_region(evaluation: Evaluation) -> Tensor | None:
    """Where the trigger is, (1, 1, H, W) bool: pixels that differ in more than half of the pairs of a clean picture and
    the same one stamped. None when the files hold no pairs, in order, or the trigger has no fixed place.
    """
    clean, poisoned = evaluation.clean, evaluation.poisoned
    if clean is None or poisoned is None:
        return None
    pairs = clean
    missing = np.setdiff1d(clean.labels, poisoned.labels)
    if len(clean) != len(poisoned):
        pairs = clean.take(np.flatnonzero(~np.isin(clean.labels, missing)))
    if len(pairs) != len(poisoned) or not np.array_equal(pairs.labels, poisoned.labels):
        return None
    difference = np.abs(pairs.images.astype(np.int16) - poisoned.images.astype(np.int16)).max(3)
    often = (difference > CHANGED * 255).mean(0) > 0.5
    return torch.from_numpy(often)[None, None] if often.any() else None


@torch.no_grad()
def trigger_figures(
    trigger: Trigger, frames: Tensor, target: int, sick: Bundle, region: Tensor | None
) -> tuple[float | None, float | None]:
    """Of clean `frames` (N, C, H, W) of other classes with the recovered trigger on: the share that the sick model
    sends to the target, and the mean of |G(x) − x| over the pixels outside the trigger.

    Outside is where `region` is False; without a region, where the recovered trigger covers less than a tenth of a
    pixel. None where nothing is outside, or without frames.
    """
    if not len(frames):
        return None, None
    generator = torch.Generator().manual_seed(2)
    hits, changes = [], []
    for part in batch_slices(len(frames), *frames.shape[2:]):
        marked, covered = trigger.put(frames[part], generator)
        hits.append(sick.logits(marked).argmax(1) == target)
        outside = (covered < 0.1) if region is None else (~region).expand_as(covered)
        changes.append((marked - frames[part]).abs().mean(1, keepdim=True)[outside])
    change = torch.cat(changes)
    return float(torch.cat(hits).float().mean()), float(change.mean()) if len(change) else None
