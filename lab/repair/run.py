"""The whole repair: target, trigger, unlearning, and result."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab.data import LabelledPictures, to_frames
from lab.repair.checkpoints import Checkpoints, digest
from lab.repair.cyclegan import PAPER
from lab.repair.figures import Evaluation, attack_figures, clean_accuracy, trigger_figures, trigger_region
from lab.repair.held_out import HeldOut, compare, split
from lab.repair.inputs import (
    at_network_size,
    check_called,
    check_clean,
    check_others,
    copied,
    find_target,
    frozen,
    trainable_copy,
    verdicts,
)
from lab.repair.recovery import Evidence, Found, Progress, Trigger, evidence, painted, recover
from lab.repair.unlearn import UnlearnData, UnlearnSettings, augmented, unlearn
from lab.training.recipe import distinct_tensors
from processors.bundle import Bundle

Mode = Literal["default", "paper"]
WORK: Final = 30e9
"""Floating-point operations for single-frame forward passes over all steps. They set the number of steps."""
STEPS: Final = (150, 1000)
PAPER_EPOCHS: Final = 100
PAPER_RATE: Final = 5e-4
WIDE: Final = 0.06
"""Coverage above which a trigger hides content of clean frames. Ignoring it then costs clean accuracy.

So frames with such a trigger get less weight, in proportion to the coverage.
"""
STEPS_BACK: Final = (1.0, 0.9, 0.8)
"""Shares of the change from the backdoored weights to the repaired ones, tried in turn while the loss is too high."""


@dataclass(frozen=True)
class RepairSettings:
    """The settings. `paper` is the paper's method as far as it is described; `default` is ours.

    `steps` of unlearning is None for a number that depends on the network's cost.
    """

    mode: Mode = "default"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class RepairResult:
    """The result of `repair`. `cured` is the backdoored bundle with the repaired network, `trigger` the recovered one.

    `held_out` covers frames that were not used at all, `chosen` those that chose the share `way` of the weight change.
    `figures` has the keys of `pointillist lab repair --json`. `shown` are held-out clean frames (n, C, H, W) and
    `flagged` quarantined ones, for pictures.
    """

    cured: Bundle
    network: nn.Module
    target: int
    trigger: Trigger
    tried: dict[str, Evidence]
    held_out: HeldOut
    chosen: HeldOut
    way: float
    figures: dict[str, Any]
    shown: Tensor
    flagged: Tensor

    @property
    def acceptable(self) -> bool:
        """True if the repaired network may be published: neither group of held-out frames loses too much."""
        return self.held_out.acceptable and self.chosen.acceptable


class Silent:
    """A progress receiver that does nothing."""

    def phase(self, name: str, steps: int) -> None:
        """Do nothing."""

    def advance(self, steps: int) -> None:
        """Do nothing."""


def repair(
    sick: Bundle,
    clean: LabelledPictures,
    quarantine: NDArray[np.uint8],
    settings: RepairSettings | None = None,
    *,
    evaluation: Evaluation | None = None,
    work: Path | None = None,
    progress: Progress | None = None,
) -> RepairResult:
    """Repair the network of `sick` with clean pictures and quarantined ones (M, H, W, C) uint8.

    Pictures of another size than the network's are resampled by the bundle's policy. `evaluation` is used for the
    figures alone; without it they are None. `work` keeps checkpoints, so the same call resumes an interrupted run.
    Stages without a gradient get the identity's. Random stages draw from torch's global generator, which is set to the
    settings' seed meanwhile. Runs on the CPU. Raises ConfigError for unsuitable pictures, and BundleError for a network
    that cannot be trained.
    """
    settings, evaluation = settings or RepairSettings(), evaluation or Evaluation(None, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _repair(sick, clean, quarantine, settings, evaluation, work, progress or Silent())


def _repair(
    sick: Bundle,
    clean: LabelledPictures,
    quarantine: NDArray[np.uint8],
    settings: RepairSettings,
    evaluation: Evaluation,
    work: Path | None,
    progress: Progress,
) -> RepairResult:
    started, used = time.monotonic(), time.process_time()
    given, sick = sick, sick.passable
    network = trainable_copy(sick)
    classes = len(sick.settings.classes)
    check_clean(clean, classes)
    clean = _sized(clean, sick, "clean pictures")
    frames, labels = to_frames(clean.images, sick.device), torch.from_numpy(clean.labels)
    flagged = to_frames(at_network_size(quarantine, sick, "quarantine"), sick.device)
    target, called = find_target(verdicts(sick, flagged))
    members = flagged[called]
    trained, choosing, held = (torch.from_numpy(part) for part in split(clean.labels, settings.seed))
    check_others(labels[trained], target)
    usual = float((verdicts(sick, frames).argmax(1) == target).float().mean())
    check_called(len(members), len(flagged), target, usual)
    inputs = digest(json.dumps(asdict(settings)), sick.model_id, clean.images, clean.labels, flagged.numpy())
    checkpoints = Checkpoints(work, inputs)

    if settings.mode == "paper":
        trigger: Trigger = painted(frames[trained], members, PAPER, None, checkpoints, progress)
        others = frames[trained][labels[trained] != target]
        found = Found(trigger, {trigger.name: evidence(trigger, others, members, target, sick.logits)})
    else:
        found = recover(frames[trained], labels[trained], members, target, sick.logits, checkpoints, progress)
    schedule, data = _unlearn_data(sick, frames[trained], labels[trained], members, target, found, settings)

    def learn(data: UnlearnData, name: str, network: nn.Module) -> nn.Module:
        progress.phase(name, schedule.steps)
        logits = replace(sick, network=network).logits
        return unlearn(network, logits, sick.logits, data, schedule, checkpoints.of(name), progress.advance)

    cured_network = learn(data, "unlearn", network)
    before = verdicts(sick, frames[choosing]).argmax(1).numpy()
    way, cured_network, chosen = _back_while_lossy(
        sick, cured_network, frames[choosing], before, clean.labels[choosing.numpy()]
    )
    cured = replace(given, network=frozen(cured_network))
    before, after = (verdicts(bundle, frames[held]).argmax(1).numpy() for bundle in (sick, cured))
    held_out = compare(before, after, clean.labels[held.numpy()])
    tuned: Bundle | None = None
    if evaluation.clean is not None or evaluation.poisoned is not None:
        nothing = frames[:0]
        alone = replace(data, stamp=None, quarantined=nothing, cleansed=nothing)
        tuned = replace(sick, network=learn(alone, "fine-tune", trainable_copy(sick)))
    shown = frames[held][labels[held] != target]
    figures = _figures(sick, cured, tuned, found.trigger, shown, target, evaluation)
    figures |= {
        "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - used,
        "mode": settings.mode, "trigger": found.trigger.name, "quarantined": len(flagged), "learned_from": len(members),
        "held_out": {**asdict(held_out), "lost": held_out.lost}, "chosen_by": {**asdict(chosen), "lost": chosen.lost},
        "published": held_out.acceptable and chosen.acceptable,
    }  # fmt: skip
    return RepairResult(
        cured, cured_network, target, found.trigger, found.tried, held_out, chosen, way, figures,
        shown[:8], members[:8],
    )  # fmt: skip


def _sized(pictures: LabelledPictures, bundle: Bundle, place: str) -> LabelledPictures:
    return LabelledPictures(pictures.name, at_network_size(pictures.images, bundle, place), pictures.labels)


def _unlearn_data(
    sick: Bundle,
    frames: Tensor,
    labels: Tensor,
    members: Tensor,
    target: int,
    found: Found,
    settings: RepairSettings,
) -> tuple[UnlearnSettings, UnlearnData]:
    """Return the training data of the unlearning and its settings."""
    trigger = found.trigger

    def stamp(x: Tensor, generator: torch.Generator) -> Tensor:
        return trigger.put(x, generator)[0]

    if settings.mode == "paper":
        steps = settings.steps or PAPER_EPOCHS * max(1, len(frames) // 50)
        schedule = UnlearnSettings(steps, 50, PAPER_RATE, true_labels=1.0, mixed=0.0, shift=0, seed=settings.seed)
        return schedule, UnlearnData(frames, labels, stamp, frames[:0], frames[:0], flip=False)
    cleansed = torch.cat([trigger.remove(part) for part in torch.split(members, 128)])
    # Frames that keep the target class without the trigger show that class, or still contain the trigger.
    free = verdicts(sick, cleansed).argmax(1) != target
    flip, shift = harmless(sick, frames, labels)
    schedule = UnlearnSettings(steps=settings.steps or steps_for(sick), shift=shift, seed=settings.seed)
    weight = WIDE / max(WIDE, found.covers)
    return schedule, UnlearnData(frames, labels, stamp, members[free], cleansed[free], flip, weight)


def steps_for(bundle: Bundle) -> int:
    """Return the steps of unlearning: fewer for a costlier network, so that a repair of 32×32 frames takes minutes."""
    wanted = bundle.settings.input
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        bundle.logits(torch.zeros(1, wanted.channels, wanted.height, wanted.width))
    return int(min(STEPS[1], max(STEPS[0], WORK / max(1, counter.get_total_flops()))))


def harmless(sick: Bundle, frames: Tensor, labels: Tensor) -> tuple[bool, int]:
    """Return whether flipping, and by how many pixels (0 to 2) shifting, costs the model at most two points."""

    def right(view: Tensor) -> float:
        return float((verdicts(sick, view).argmax(1) == labels).float().mean())

    least = right(frames) - 0.02
    flip = right(frames.flip(3)) >= least
    for shift in (2, 1):
        moved = augmented(frames, shift, False, torch.Generator().manual_seed(3))
        if right(moved) >= least:
            return flip, shift
    return flip, 0


def _back_while_lossy(
    sick: Bundle, cured: nn.Module, held: Tensor, before: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[float, nn.Module, HeldOut]:
    """Return the repaired weights, or weights nearer to the original ones if frames `held` lose too much."""
    source = trainable_copy(sick).state_dict()
    first: tuple[float, nn.Module, HeldOut] | None = None
    for way in STEPS_BACK:
        network = frozen(copied(cured))
        for name, value in distinct_tensors(network):
            if value.is_floating_point():
                value.lerp_(source[name], 1 - way)
        after = verdicts(replace(sick, network=network), held).argmax(1).numpy()
        outcome = way, network, compare(before, after, labels)
        if outcome[2].acceptable:
            return outcome
        first = first or outcome
    assert first is not None
    return first


def _figures(
    sick: Bundle,
    cured: Bundle,
    tuned: Bundle | None,
    trigger: Trigger,
    shown: Tensor,
    target: int,
    evaluation: Evaluation,
) -> dict[str, Any]:
    clean = None if evaluation.clean is None else _sized(evaluation.clean, sick, "clean pictures of the evaluation")
    poisoned = (
        None
        if evaluation.poisoned is None
        else _sized(evaluation.poisoned, sick, "poisoned pictures of the evaluation")
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
