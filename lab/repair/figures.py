"""The figures of a repair: clean accuracy, attack success, recovered accuracy, and the recovered trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.data import LabelledPictures, batch_slices, to_frames
from lab.repair.inputs import sized, verdicts
from lab.repair.recovery import Trigger
from processors.bundle import Bundle

CHANGED: float = 2 / 255
"""A pixel with a larger difference belongs to the trigger."""


@dataclass(frozen=True)
class Evaluation:
    """Pictures with their true classes that are not used in the repair: clean ones and stamped ones, or None."""

    clean: LabelledPictures | None
    poisoned: LabelledPictures | None


def clean_accuracy(bundle: Bundle, pictures: LabelledPictures | None) -> float | None:
    """Return the accuracy on `pictures`; None without any."""
    return None if pictures is None else float((_called(bundle, pictures) == pictures.labels).mean())


def attack_figures(
    bundle: Bundle, poisoned: LabelledPictures | None, target: int | None
) -> tuple[float | None, float | None]:
    """Return, over stamped pictures of all classes but `target`, the share classified as target and the accuracy.

    Without a target, the share is None.
    """
    if poisoned is None:
        return None, None
    others = poisoned.labels != target
    if not others.any():
        return None, None
    called = _called(bundle, poisoned)[others]
    success = None if target is None else float((called == target).mean())
    return success, float((called == poisoned.labels[others]).mean())


def _called(bundle: Bundle, pictures: LabelledPictures) -> NDArray[np.int64]:
    frames = to_frames(pictures.images, bundle.device)
    called: NDArray[np.int64] = verdicts(bundle, frames).argmax(1).cpu().numpy()
    return called


def trigger_region(evaluation: Evaluation) -> Tensor | None:
    """Return the place of the trigger, (1, 1, H, W) bool.

    It holds the pixels that differ in more than half of the pairs of a clean picture and the same one stamped. It is
    None if the files hold no ordered pairs, or the trigger has no fixed place.
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
    trigger: Trigger | None, frames: Tensor, target: int | None, sick: Bundle, region: Tensor | None
) -> tuple[float | None, float | None]:
    """Return the attack success and the side effect of the recovered trigger on clean `frames` (N, C, H, W).

    `frames` are of other classes than the target. The success is the share that the backdoored model classifies as the
    target. The side effect is the mean of |G(x) − x| over the pixels outside the trigger. Outside is where `region` is
    False; without a region, where the recovered trigger covers less than a tenth of a pixel. Values are None if no
    pixel is outside, or without frames or a trigger.
    """
    if trigger is None or target is None or not len(frames):
        return None, None
    generator = torch.Generator().manual_seed(2)
    hits, changes = [], []
    for part in batch_slices(len(frames), *frames.shape[2:]):
        marked, covered = trigger.put(frames[part], generator)
        hits.append(sick.logits(marked).argmax(1).eq(target))
        outside = (covered < 0.1) if region is None else (~region).expand_as(covered)
        changes.append((marked - frames[part]).abs().mean(1, keepdim=True)[outside])
    change = torch.cat(changes)
    return float(torch.cat(hits).float().mean()), float(change.mean()) if len(change) else None


def repair_figures(
    sick: Bundle,
    cured: Bundle,
    tuned: Bundle | None,
    trigger: Trigger | None,
    shown: Tensor,
    target: int | None,
    evaluation: Evaluation,
) -> dict[str, Any]:
    """Return the figures of a repair by their names in `pointillist lab repair --json`.

    `tuned` is the backdoored model after fine-tuning without a trigger; `shown` are clean frames of other classes.
    """
    clean = None if evaluation.clean is None else sized(evaluation.clean, sick, "clean pictures of the evaluation")
    poisoned = (
        None if evaluation.poisoned is None else sized(evaluation.poisoned, sick, "poisoned pictures of the evaluation")
    )
    success_before, _ = attack_figures(sick, poisoned, target)
    success_after, recovered = attack_figures(cured, poisoned, target)
    success_tuned = None if tuned is None else attack_figures(tuned, poisoned, target)[0]
    activation, outside = trigger_figures(trigger, shown, target, sick, trigger_region(Evaluation(clean, poisoned)))
    return {
        "clean_accuracy": {"before": clean_accuracy(sick, clean), "after": clean_accuracy(cured, clean)},
        "attack_success": {"before": success_before, "after": success_after},
        "fine_tune_only": {
            "attack_success": success_tuned,
            "clean_accuracy": None if tuned is None else clean_accuracy(tuned, clean),
        },
        "recovered_accuracy": recovered,
        "trigger_activation": activation,
        "change_outside_trigger": outside,
        "target_class": target,
    }
