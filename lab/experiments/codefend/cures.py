"""All methods of repairing a backdoored model, on the same clean pictures: Tables 4 and 5 of the paper, and rivals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lab.backdoor.files import flagged_stream, stamped_pictures
from lab.backdoor.train import CPU
from lab.cache import Arrays, Cache, Step, digest
from lab.data import to_frames, to_images
from lab.experiments.codefend import quarantines
from lab.experiments.codefend.outcome import Outcome, outcome
from lab.experiments.codefend.re_poisoning import poisoned_again
from lab.experiments.codefend.rivals.anp import Masking, adversarially_pruned
from lab.experiments.codefend.rivals.fine_pruning import fine_pruned
from lab.experiments.codefend.rivals.i_bau import Unlearning, unlearn_universal
from lab.experiments.codefend.rivals.neural_cleanse import cleanse
from lab.experiments.codefend.rivals.npd import Polarizing, polarized
from lab.experiments.codefend.rivals.variance_ratio import stamp_of
from lab.experiments.codefend.rows import RepairRow
from lab.experiments.codefend.subjects import Subject
from lab.provenance import made_by
from lab.repair.figures import Evaluation, trigger_figures, trigger_region
from lab.repair.run import Mode, RepairSettings, repair
from lab.repair.tuning import FT_SAM, Tuning, tune
from processors.bundle import Bundle

GRID = (0.003, 0.01, 0.03, 0.1)
"""Learning rates of the fine-tunings that the repair is compared with."""
REGION = 500
"""Number of test pictures for locating a trigger, and for measuring the effect of the recovered trigger."""
LARGEST_LOSS = 0.02
"""Largest loss of clean accuracy of a fine-tuning in the comparison: diverged networks have no backdoor either."""
RIVAL_RATE = 0.01
CLEANSE_STEPS = 100

Quarantine = NDArray[np.uint8]


@dataclass(frozen=True)
class Cured:
    """A repaired model, and the figures that its method reports."""

    bundle: Bundle
    target: int | None = None
    activation: float | None = None
    change_outside: float | None = None
    published: bool = True
    examples: Quarantine | None = None
    """(k, 2, H, W, C): clean pictures, each next to the generator's version."""


Method = Callable[[Subject, Quarantine], Cured]


def by_repair(mode: Mode) -> Method:
    """Return `pointillist lab repair` in one of its modes, as a method."""

    def cure(subject: Subject, quarantine: Quarantine) -> Cured:
        result = repair(subject.bundle, subject.task.valid, quarantine, RepairSettings(mode))
        few = subject.task.test.take(np.flatnonzero(subject.poisoning.attacks(subject.task.test.labels))[:REGION])
        region = trigger_region(Evaluation(few, stamped_pictures(few, subject.poisoning)))
        if result.trigger is None:
            return Cured(result.cured, result.target, published=result.acceptable)
        figures = trigger_figures(result.trigger, to_frames(few.images, CPU), result.target, subject.bundle, region)
        marked, _ = result.trigger.put(result.shown, torch.Generator().manual_seed(0))
        examples = np.stack([to_images(result.shown), to_images(marked)], 1)
        return Cured(result.cured, result.target, *figures, result.acceptable, examples)

    return cure


def fine_tunings(subject: Subject) -> list[tuple[float, Bundle]]:
    """Return the backdoored model after fine-tuning on D_valid, with each learning rate of the grid."""
    return [(rate, tune(subject.bundle, subject.task.valid, Tuning(rate, flip=subject.mirrors))) for rate in GRID]


def best_fine_tuning(found: list[tuple[float, Outcome]], before: Outcome) -> tuple[float, Outcome]:
    """Return the fine-tuning with the least attack success among those that lose at most `LARGEST_LOSS`.

    If all lose more, return the one with the least loss.
    """
    usable = [pair for pair in found if pair[1].clean_accuracy >= before.clean_accuracy - LARGEST_LOSS]
    if usable:
        return min(usable, key=lambda pair: pair[1].attack_success)
    return max(found, key=lambda pair: pair[1].clean_accuracy)


def by_fine_pruning(subject: Subject, quarantine: Quarantine) -> Cured:
    """Repair by fine-pruning."""
    return Cured(fine_pruned(subject.bundle, subject.task.valid, Tuning(RIVAL_RATE, flip=subject.mirrors)))


def by_neural_cleanse(subject: Subject, quarantine: Quarantine) -> Cured:
    """Unlearn the trigger that Neural Cleanse finds for the most anomalous class."""
    found = cleanse(subject.bundle, subject.task.valid, steps=CLEANSE_STEPS)
    tuning = Tuning(RIVAL_RATE, flip=subject.mirrors)
    return Cured(tune(subject.bundle, subject.task.valid, tuning, found.stamp), found.target)


def by_anp(subject: Subject, quarantine: Quarantine) -> Cured:
    """Prune the neurons that adversarial masks find."""
    return Cured(adversarially_pruned(subject.bundle, subject.task.valid, Masking()))


def by_npd(subject: Subject, quarantine: Quarantine) -> Cured:
    """Insert a neural polarizer."""
    return Cured(polarized(subject.bundle, subject.task.valid, Polarizing()))


def by_i_bau(subject: Subject, quarantine: Quarantine) -> Cured:
    """Unlearn universal perturbations."""
    return Cured(unlearn_universal(subject.bundle, subject.task.valid, Unlearning()))


def by_ft_sam(subject: Subject, quarantine: Quarantine) -> Cured:
    """Fine-tune at the worst weights of a neighbourhood. No frame is held out, and nothing is rejected."""
    return Cured(tune(subject.bundle, subject.task.valid, replace(FT_SAM, flip=subject.mirrors)))


def by_variance_ratio(subject: Subject, quarantine: Quarantine) -> Cured:
    """Unlearn the pixels that do not vary in the quarantine."""
    stamp = stamp_of(subject.task.valid, quarantine)
    return Cured(tune(subject.bundle, subject.task.valid, Tuning(RIVAL_RATE, flip=subject.mirrors), stamp))


def by_poisoning_again(subject: Subject, quarantine: Quarantine) -> Cured:
    """Return the repaired model after an attacker poisoned it again: this is no repair."""
    repaired = by_repair("default")(subject, quarantine)
    return Cured(poisoned_again(repaired.bundle, subject.name, subject.task, subject.poisoning))


def by_curing_again(subject: Subject, quarantine: Quarantine) -> Cured:
    """Repair the model that was repaired and poisoned again, with a new quarantine from its own STRIP."""
    again = by_poisoning_again(subject, quarantine).bundle
    flagged = flagged_stream(subject.task, subject.poisoning, again).images
    result = repair(again, subject.task.valid, flagged, RepairSettings("default"))
    return Cured(result.cured, result.target, published=result.acceptable)


METHODS: dict[str, Method] = {
    "default": by_repair("default"),
    "paper": by_repair("paper"),
    "quarantine": by_repair("quarantine"),
    "clean": by_repair("clean"),
    "fine-pruning": by_fine_pruning,
    "Neural Cleanse": by_neural_cleanse,
    "variance ratio": by_variance_ratio,
    "anp": by_anp,
    "npd": by_npd,
    "i-bau": by_i_bau,
    "ft-sam": by_ft_sam,
    "poisoned again": by_poisoning_again,
    "poisoned again, then default": by_curing_again,
}
FINE_TUNING = "fine-tuning"
CLEAN_ALONE = (FINE_TUNING, "fine-pruning", "Neural Cleanse", "anp", "npd", "i-bau", "ft-sam")
"""Methods that use no quarantine, so that none is made for them."""


def step_of(subject: Subject, method: str, kind: str) -> Step:
    """Return the cache key of one method's result on one quarantine."""
    name = f"cures/{subject.name}-{method}-{kind}".replace(" ", "_")
    return Step(name, digest(subject.state, made_by(__name__), made_by(quarantines.__name__), method, kind))


def cure(
    subject: Subject, method: str, kind: str, quarantine: Callable[[], Quarantine], before: Outcome, cache: Cache
) -> tuple[RepairRow, Arrays]:
    """Return the row of one method on one quarantine, measured on the whole test split, and its example pictures."""

    def run() -> Arrays:
        frames = subject.task.stream.images[:0] if method in CLEAN_ALONE else quarantine()
        started = time.monotonic()
        if method == FINE_TUNING:
            tuned = fine_tunings(subject)
            seconds = time.monotonic() - started
            judged = [(rate, _judged(subject, bundle)) for rate, bundle in tuned]
            rate, after = best_fine_tuning(judged, before)
            return _arrays(after, seconds, Cured(subject.bundle)) | {"rate": np.array(rate)}
        cured = METHODS[method](subject, frames)
        seconds = time.monotonic() - started
        return _arrays(_judged(subject, cured.bundle), seconds, cured)

    step = step_of(subject, method, kind)
    found = cache.get(step.name, step.made_from, run)
    number = {name: _number(found[name]) for name in ("target", "activation", "change_outside")}
    row = RepairRow(
        model=subject.name,
        method=method,
        quarantine=kind,
        clean_before=before.clean_accuracy,
        clean_after=float(found["clean_accuracy"]),
        success_before=before.attack_success,
        success_after=float(found["attack_success"]),
        recovered_before=before.recovered_accuracy,
        recovered_after=float(found["recovered_accuracy"]),
        target_found=None if number["target"] is None else int(number["target"]),
        activation=number["activation"],
        change_outside=number["change_outside"],
        seconds=float(found["seconds"]),
        published=bool(found["published"]),
    )
    return row, found


def _judged(subject: Subject, bundle: Bundle) -> Outcome:
    return outcome(bundle, subject.task.test, subject.stamped, subject.poisoning)


def _arrays(after: Outcome, seconds: float, cured: Cured) -> Arrays:
    values = {"target": cured.target, "activation": cured.activation, "change_outside": cured.change_outside}
    numbers = {name: np.array(np.nan if value is None else value) for name, value in values.items()}
    found: Arrays = {
        **{name: np.array(value) for name, value in after._asdict().items()},
        **numbers,
        "seconds": np.array(seconds),
        "published": np.array(cured.published),
    }
    return found if cured.examples is None else found | {"examples": cured.examples}


def _number(value: NDArray[np.generic]) -> float | None:
    number = float(value.astype(np.float64))
    return None if np.isnan(number) else number
