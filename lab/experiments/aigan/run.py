"""Measurements of the experiment: attacked pictures, verdicts and times, with a checkpoint after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.aigan.measure import (
    GAINS,
    PGD_STEPS,
    attack,
    bare,
    frames_of,
    pgd,
    require_fit,
    sharpened,
    targets_for,
    verdicts,
)
from lab.aigan.opponents import differentiable
from lab.aigan.run import generator_name
from lab.aigan.shipping import Attacker, Frames, shipped_generator
from lab.aigan.tasks import Task
from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.experiments.aigan import plots, report
from lab.experiments.aigan.defences import NOTHING, Defence, defences
from lab.experiments.aigan.rows import Generator, SuccessRow, TimeRow
from lab.experiments.harness.cell import Tables
from lab.provenance import made_by
from lab.statistics import wilson
from processors.bundle import Bundle, load_bundle

GRADIENTS: Final = {"FGSM": 1, "PGD-40": PGD_STEPS}
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Attacked:
    """A task under attack: `images` test pictures by the generators, `pgd_images` of them by FGSM and PGD."""

    task: Task
    images: int
    pgd_images: int
    seed: int
    data: Path | None
    out: Path
    cache: Cache

    @cached_property
    def target(self) -> Bundle:
        """The attacked network."""
        return load_bundle(self.task.target(), torch.device("cpu"))

    @cached_property
    def pictures(self) -> LabelledPictures:
        """The test pictures."""
        return self.task.judged(self.data, self.images)

    def by_generator(self, name: str) -> Tables:
        """Return the rows of one generator, and its note. Behind defences only `pgd_images` pictures are used."""
        attacker = Attacker(shipped_generator(name))
        require_fit(attacker, self.target, self.pictures)
        settings = attacker.settings
        note = Generator(name, settings.knowledge, settings.bundle, settings.command)
        return {
            "success": list(self._by_generator(self.task, attacker, self.target, self.pictures)),
            "generators": [note],
        }

    def by_sharpening(self, name: str) -> Tables:
        """Return the rows of a generator with the gain of `GAINS` that succeeds most on the validation pictures."""
        attacker, chosen = Attacker(shipped_generator(name)), self.task.pictures(self.data).valid.first(self.images)
        gain, judge = best_gain(attacker, self.target, chosen, self.seed), bare(self.target)
        frames, labels, settings = frames_of(self.pictures), self.pictures.labels, attacker.settings
        targets = targets_for(labels, len(self.target.settings.classes), self.seed)
        made = sharpened(attacker, frames, targets, gain)
        seen: Arrays = {"clean": verdicts(judge, frames), "attacked": verdicts(judge, made)}
        what = f"AI-GAN, sharpened {gain:g} times"
        rows = rows_of(self.task.name, settings.knowledge, what, settings.eps, NOTHING, seen, targets, labels)
        return {"success": list(rows)}

    def by_gradients(self) -> Tables:
        """Return the rows of FGSM and PGD towards the same targets, and the times of all attacks."""
        found, timed = self._by_gradients(self.task, self.target, self.pictures.first(self.pgd_images))
        return {"success": found, "times": timed}

    def _by_generator(
        self, task: Task, attacker: Attacker, target: Bundle, pictures: LabelledPictures
    ) -> Iterator[SuccessRow]:
        """Yield rows for all pictures on the bare network, and for the first `pgd_images` behind each defence."""
        frames, labels, settings = frames_of(pictures), pictures.labels, attacker.settings
        made = attack(attacker, frames, targets_for(labels, len(target.settings.classes), self.seed))
        white_box = settings.knowledge == "white-box"
        if white_box:
            plots.pictures(attacker, frames, labels, report.plot(self.out, f"{settings.name}-pictures"))
        for defence in defences(task.name, target, self.seed)[: None if white_box else 1]:
            some = slice(None if defence.name == NOTHING else self.pgd_images)
            seen = self._seen(task, f"{settings.name} {attacker.digest}", defence, frames[some], made.frames[some])
            yield from rows_of(
                task.name,
                settings.knowledge,
                "AI-GAN",
                settings.eps,
                defence.name,
                seen,
                made.targets[some],
                labels[some],
            )
            if defence.name == NOTHING:
                file = report.plot(self.out, f"{settings.name}-classes")
                plots.confusion(settings, seen["attacked"], made.targets, file)

    def _seen(self, task: Task, what: str, defence: Defence, clean: Frames, made: Frames) -> Arrays:
        """Return the verdicts (N,) on pictures before and after an attack, as `clean` and `attacked`."""
        return {
            "clean": self._verdicts(task, "clean", defence, clean),
            "attacked": self._verdicts(task, what, defence, made),
        }

    def _verdicts(self, task: Task, what: str, defence: Defence, frames: Frames) -> NDArray[np.generic]:
        state = digest(made_by(__name__), what, defence.model_id, defence.name, self.seed, len(frames))
        step = "-".join((what.partition(" ")[0], *defence.name.split(), str(len(frames))))
        made = self.cache.get(f"{task.name}/{step}", state, lambda: {"verdicts": verdicts(defence.judge(), frames)})
        return made["verdicts"]

    def _by_gradients(
        self, task: Task, target: Bundle, pictures: LabelledPictures
    ) -> tuple[list[SuccessRow], list[TimeRow]]:
        """Return the rows of FGSM and PGD towards the same targets, and the times of both and of the generator."""
        attacker = Attacker(shipped_generator(generator_name(task, black_box=False)))
        eps = attacker.settings.eps
        frames, labels = frames_of(pictures), pictures.labels
        targets = targets_for(labels, len(target.settings.classes), self.seed)
        state = digest(made_by(__name__), attacker.digest, target.model_id, eps, self.seed, len(frames))
        found = self.cache.get(
            f"{task.name}/race", state, lambda: race(attacker, target, frames, labels, targets, self.seed)
        )
        successes: list[SuccessRow] = []
        for name in GRADIENTS:
            made = found[name].astype(np.float32)
            for defence in defences(task.name, target, self.seed):
                seen = self._seen(task, f"{name} {state}", defence, frames, made)
                successes += rows_of(task.name, "white-box", name, eps, defence.name, seen, targets, labels)
        threads = int(found["threads"])
        return successes, [
            TimeRow(task.name, name, len(frames), float(seconds), threads)
            for name, seconds in zip((*GRADIENTS, "AI-GAN"), found["seconds"], strict=True)
        ]


def best_gain(attacker: Attacker, target: Bundle, pictures: LabelledPictures, seed: int) -> float:
    """Return the gain with the most successes on `pictures`, of several the smallest."""
    frames = frames_of(pictures)
    targets = targets_for(pictures.labels, len(target.settings.classes), seed)
    hits = [
        int((verdicts(bare(target), sharpened(attacker, frames, targets, each)) == targets).sum()) for each in GAINS
    ]
    return GAINS[int(np.argmax(hits))]


def race(attacker: Attacker, target: Bundle, frames: Frames, labels: Labels, targets: Labels, seed: int) -> Arrays:
    """Return the frames attacked by FGSM and PGD, and the seconds of both and of the generator, in one run."""
    eps = attacker.settings.eps
    logits = differentiable(target)
    by_steps = [pgd(logits, frames, labels, targets, eps, seed, steps) for steps in GRADIENTS.values()]
    seconds = [each.seconds for each in (*by_steps, attack(attacker, frames, targets))]
    made: Arrays = {name: each.frames for name, each in zip(GRADIENTS, by_steps, strict=True)}
    return made | {"seconds": np.array(seconds), "threads": np.array(torch.get_num_threads())}


def rows_of(
    task: str, knowledge: str, attack: str, eps: float, defence: str, seen: Arrays, targets: Labels, labels: Labels
) -> Iterator[SuccessRow]:
    """Yield one row over all targets. Without a defence, yield one row for each target as well."""
    attacked, clean = seen["attacked"], seen["clean"]
    for target in (-1, *(np.unique(targets).tolist() if defence == NOTHING else ())):
        part = np.ones(len(targets), bool) if target < 0 else targets == target
        hits = int((attacked[part] == targets[part]).sum())
        share = wilson(hits, int(part.sum()))
        yield SuccessRow(
            task, knowledge, attack, eps, defence, target, hits, int(part.sum()), *share,
            accuracy=float((attacked[part] == labels[part]).mean()), clean=float((clean[part] == labels[part]).mean()),
        )  # fmt: skip
