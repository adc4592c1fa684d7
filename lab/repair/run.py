"""The whole repair: target, trigger, unlearning of it or of labels, and result."""

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
from lab.repair.figures import Evaluation, repair_figures
from lab.repair.held_out import HeldOut, compare, split
from lab.repair.inputs import (
    at_network_size,
    check_called,
    check_clean,
    check_enough,
    check_others,
    copied,
    find_target,
    frozen,
    sized,
    trainable_copy,
    verdicts,
)
from lab.repair.recovery import Evidence, Found, Progress, Trigger, evidence, painted, recover
from lab.repair.tuning import FALLBACK, FT_SAM, tune
from lab.repair.unlearn import UnlearnData, UnlearnSettings, harmless, unlearn, views
from lab.training.recipe import distinct_tensors
from processors.bundle import Bundle

Mode = Literal["default", "paper", "quarantine", "clean"]
UNLEARNING: Final = "unlearning"
LABELS: Final = "label unlearning"
"""Names of the methods that use the quarantine: with a recovered trigger, and without."""
WORK: Final = 30e9
"""Floating-point operations for single-frame forward passes over all steps. They set the number of steps."""
STEPS: Final = (150, 1000)
PAPER_EPOCHS: Final = 100
PAPER_RATE: Final = 5e-4
LABEL_RATE: Final = 5e-4
"""Learning rate for unlearned labels."""
WIDE: Final = 0.06
"""Coverage above which a trigger hides content of clean frames. Ignoring it then costs clean accuracy.

So frames with such a trigger get less weight, in proportion to the coverage.
"""
STEPS_BACK: Final = (1.0, 0.9, 0.8)
"""Shares of the change from the backdoored weights to the repaired ones, tried in turn until the loss is acceptable."""


@dataclass(frozen=True)
class RepairSettings:
    """The settings. `paper` is the paper's method as far as it is described; `default` is ours.

    `quarantine` unlearns the labels of the quarantined frames without a search for their trigger, whatever their
    classes are. `clean` needs no quarantine. `steps` of training is None for a number that depends on the network's
    cost.
    """

    mode: Mode = "default"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class RepairResult:
    """The result of `repair`. `cured` is the backdoored bundle with the repaired network.

    `trigger` is the recovered one, or None if the repair did without. `target` is None in the modes `quarantine` and
    `clean`. `tried` holds the evidence for each trigger. `held_out` covers frames that were not used at all,
    `chosen` those that chose the share `way` of the weight change.
    `figures` has the keys of `pointillist lab repair --json`. `shown` are held-out clean frames (n, C, H, W) and
    `flagged` quarantined ones, for pictures.
    """

    cured: Bundle
    network: nn.Module
    target: int | None
    trigger: Trigger | None
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
    figures alone; without it they are None. If no trigger explains the quarantine, the labels of its frames are
    unlearned. `work` keeps checkpoints, so the same call resumes an interrupted run. Stages without
    a gradient get the identity's. Random stages draw from torch's global generator, which is set to the settings' seed
    meanwhile. Runs on the CPU. Raises ConfigError for unsuitable pictures, and BundleError for a network that cannot be
    trained.
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
    clean = sized(clean, sick, "clean pictures")
    frames, labels = to_frames(clean.images, sick.device), torch.from_numpy(clean.labels)
    flagged = to_frames(at_network_size(quarantine, sick, "quarantine"), sick.device)
    trained, choosing, held = (torch.from_numpy(part) for part in split(clean.labels, settings.seed))
    target: int | None = None
    members = flagged
    if settings.mode in ("default", "paper"):
        target, members = _target(sick, flagged, frames, labels[trained])
    elif settings.mode == "quarantine":
        check_enough(len(flagged))
    inputs = digest(json.dumps(asdict(settings)), sick.model_id, clean.images, clean.labels, flagged.numpy())
    checkpoints = Checkpoints(work, inputs)

    found = _found(sick, frames[trained], labels[trained], members, target, settings, checkpoints, progress)
    trigger = found.trigger
    schedule, data = _unlearn_data(sick, frames[trained], labels[trained], members, target, found, settings)

    def learn(data: UnlearnData, name: str, network: nn.Module) -> nn.Module:
        progress.phase(name, schedule.steps)
        logits = replace(sick, network=network).logits
        return unlearn(network, logits, sick.logits, data, schedule, checkpoints.of(name), progress.advance)

    if settings.mode == "clean":
        tuning = replace(FT_SAM, flip=data.flip, shift=schedule.shift, seed=settings.seed)
        if settings.steps is not None:
            tuning = replace(tuning, epochs=max(1, settings.steps * tuning.batch // len(trained)))
        progress.phase(FALLBACK, tuning.epochs)
        pictures = clean.take(trained.numpy())
        sharp = tune(sick, pictures, tuning, checkpoint=checkpoints.of(FALLBACK), advance=progress.advance)
        assert isinstance(sharp.network, nn.Module)
        cured_network = sharp.network
    else:
        cured_network = learn(data, "unlearn", network)
    way, cured_network, chosen = _back_while_lossy(
        sick, cured_network, views(frames[choosing], schedule.shift, data.flip), clean.labels[choosing.numpy()]
    )
    cured = replace(given, network=frozen(cured_network))
    seen = views(frames[held], schedule.shift, data.flip)
    held_out = compare(_classes_of(sick, seen), _classes_of(cured, seen), clean.labels[held.numpy()])
    tuned: Bundle | None = None
    if evaluation.clean is not None or evaluation.poisoned is not None:
        nothing = frames[:0]
        alone = replace(data, stamp=None, quarantined=nothing, cleansed=nothing, denied=nothing)
        tuned = replace(sick, network=learn(alone, "fine-tune", trainable_copy(sick)))
    shown = frames[held] if target is None else frames[held][labels[held] != target]
    figures = repair_figures(sick, cured, tuned, trigger, shown, target, evaluation)
    still: float | None = None
    if settings.mode != "clean":
        was, now = (verdicts(bundle, members).argmax(1) for bundle in (sick, cured))
        still = float((was == now).float().mean())
    method = FALLBACK if settings.mode == "clean" else LABELS if trigger is None else UNLEARNING
    figures |= {
        "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - used,
        "mode": settings.mode, "method": method,
        "trigger": None if trigger is None else trigger.name,
        "quarantined": len(flagged), "learned_from": 0 if settings.mode == "clean" else len(members),
        "quarantined_keep_their_label": still,
        "held_out": asdict(held_out), "chosen_by": asdict(chosen),
        "published": held_out.acceptable and chosen.acceptable,
    }  # fmt: skip
    return RepairResult(
        cured, cured_network, target, trigger, found.tried, held_out, chosen, way, figures,
        shown[:8], members[:8],
    )  # fmt: skip


def _target(sick: Bundle, flagged: Tensor, frames: Tensor, labels: Tensor) -> tuple[int, Tensor]:
    """Return the target class and the quarantined frames of it. `labels` are those of the training frames."""
    target, called = find_target(verdicts(sick, flagged))
    check_others(labels, target)
    usual = float((verdicts(sick, frames).argmax(1) == target).float().mean())
    check_called(int(called.sum()), len(flagged), target, usual)
    return target, flagged[called]


def _found(
    sick: Bundle,
    frames: Tensor,
    labels: Tensor,
    members: Tensor,
    target: int | None,
    settings: RepairSettings,
    checkpoints: Checkpoints,
    progress: Progress,
) -> Found:
    """Return the recovered trigger: none without a target, the painted one in the mode `paper`."""
    if target is None:
        return Found(None, {})
    if settings.mode == "default":
        return recover(frames, labels, members, target, sick.logits, checkpoints, progress)
    trigger = painted(frames, members, checkpoints, progress)
    proof = evidence(trigger, frames[labels != target], members, target, sick.logits)
    return Found(trigger, {trigger.name: proof})


def _unlearn_data(
    sick: Bundle,
    frames: Tensor,
    labels: Tensor,
    members: Tensor,
    target: int | None,
    found: Found,
    settings: RepairSettings,
) -> tuple[UnlearnSettings, UnlearnData]:
    """Return the training data of the unlearning and its settings. Without a trigger, labels are denied."""
    trigger, nothing = found.trigger, frames[:0]

    if trigger is None:
        flip, shift = harmless(sick, frames, labels)
        schedule = UnlearnSettings(settings.steps or steps_for(sick), rate=LABEL_RATE, shift=shift, seed=settings.seed)
        denied = nothing if settings.mode == "clean" else members
        return schedule, UnlearnData(frames, labels, None, nothing, nothing, flip, denied)

    def stamp(x: Tensor, generator: torch.Generator) -> Tensor:
        return trigger.put(x, generator)[0]

    if settings.mode == "paper":
        steps = settings.steps or PAPER_EPOCHS * max(1, len(frames) // 50)
        schedule = UnlearnSettings(steps, 50, PAPER_RATE, true_labels=1.0, mixed=0.0, shift=0, seed=settings.seed)
        return schedule, UnlearnData(frames, labels, stamp, nothing, nothing, False, nothing)
    cleansed = torch.cat([trigger.remove(part) for part in torch.split(members, 128)])
    # Frames that keep the target class without the trigger show that class, or still contain the trigger.
    free = verdicts(sick, cleansed).argmax(1) != target
    flip, shift = harmless(sick, frames, labels)
    schedule = UnlearnSettings(steps=settings.steps or steps_for(sick), shift=shift, seed=settings.seed)
    weight = WIDE / max(WIDE, found.covers)
    return schedule, UnlearnData(frames, labels, stamp, members[free], cleansed[free], flip, nothing, weight)


def steps_for(bundle: Bundle) -> int:
    """Return the steps of unlearning: fewer for a costlier network, so that a repair of 32×32 frames takes minutes."""
    wanted = bundle.settings.input
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        bundle.logits(torch.zeros(1, wanted.channels, wanted.height, wanted.width))
    return int(min(STEPS[1], max(STEPS[0], WORK / max(1, counter.get_total_flops()))))


def _back_while_lossy(
    sick: Bundle, cured: nn.Module, seen: Tensor, labels: NDArray[np.int64]
) -> tuple[float, nn.Module, HeldOut]:
    """Return the repaired weights, or weights nearer to the original ones if the loss on frames `seen` (V, N, C, H, W)
    is not acceptable. If none of the losses is, return the weights that lose least.
    """
    source = trainable_copy(sick).state_dict()
    before = _classes_of(sick, seen)
    found: list[tuple[float, nn.Module, HeldOut]] = []
    for way in STEPS_BACK:
        network = frozen(copied(cured))
        for name, value in distinct_tensors(network):
            if value.is_floating_point():
                value.lerp_(source[name], 1 - way)
        found.append((way, network, compare(before, _classes_of(replace(sick, network=network), seen), labels)))
        if found[-1][2].acceptable:
            return found[-1]
    return min(found, key=lambda each: each[2].lost)


def _classes_of(bundle: Bundle, seen: Tensor) -> NDArray[np.int64]:
    """Return the classes (V, N) of views (V, N, C, H, W)."""
    return verdicts(bundle, seen.flatten(0, 1)).argmax(1).reshape(seen.shape[:2]).numpy()
