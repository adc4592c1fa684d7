"""The experiment's steps, each kept when it is done: attacked pictures, verdicts, times; then tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.aigan.measure import PGD_STEPS, attack, bare, frames_of, pgd, require_fit, targets_for, verdicts
from lab.aigan.run import generator_name
from lab.aigan.shipping import Attacker, Frames, shipped_generator
from lab.aigan.tasks import Task, task_of
from lab.data import LabelledPictures
from lab.experiments.aigan import plots, report
from lab.experiments.aigan.defences import NOTHING, Defence, defences
from lab.experiments.aigan.rows import SuccessRow, TimeRow
from lab.experiments.cache import Arrays, Cache, digest
from lab.experiments.provenance import made_by
from lab.results.csv_rows import write_rows
from lab.statistics import wilson
from processors.bundle import Bundle, load_bundle

GRADIENTS: Final = {"FGSM": 1, "PGD-40": PGD_STEPS}
Labels = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """`images` test pictures meet the generators, `pgd_images` of them PGD; nothing is done twice in `cache`."""

    tasks: tuple[str, ...]
    images: int
    pgd_images: int
    seed: int
    data: Path | None
    out: Path
    cache: Cache
    command: str
    say: Say

    def run(self) -> str:
        """Measure, write CSV, plots and Markdown into `out`; the Markdown."""
        successes: list[SuccessRow] = []
        times: list[TimeRow] = []
        notes = []
        for name in self.tasks:
            task = task_of(name)
            target = load_bundle(task.target(), torch.device("cpu"))
            pictures = task.judged(self.data, self.images)
            for black_box in (False, True) if task.black_box else (False,):
                attacker = Attacker(shipped_generator(generator_name(task, black_box)))
                require_fit(attacker, target, pictures)
                notes.append(f"{attacker.settings.name}: {attacker.settings.knowledge}, trained against "
                             f"{attacker.settings.bundle} by `{attacker.settings.command}`")  # fmt: skip
                successes += self._by_generator(task, attacker, target, pictures, black_box)
            if self.pgd_images:
                found, timed = self._by_gradients(task, target, pictures.first(self.pgd_images))
                successes += found
                times += timed
        write_rows(self.out / report.SUCCESS, successes, SuccessRow)
        write_rows(self.out / report.TIMES_FILE, times, TimeRow)
        return report.write_report(self.out, notes, self.command)

    def _by_generator(
        self, task: Task, attacker: Attacker, target: Bundle, pictures: LabelledPictures, black_box: bool
    ) -> Iterator[SuccessRow]:
        frames = frames_of(pictures)
        targets = targets_for(pictures.labels, len(target.settings.classes), self.seed)
        made = attack(attacker, frames, targets)
        knowledge, eps = attacker.settings.knowledge, attacker.settings.eps
        if not black_box:
            plots.pictures(attacker, frames, pictures.labels, report.plot(self.out, f"{task.name}-pictures"))
        for defence in defences(task.name, target, self.seed)[: 1 if black_box else None]:
            seen = self._seen(task, attacker.settings.name, attacker.digest, defence, frames, made.frames)
            yield from _rows(task.name, knowledge, "AI-GAN", eps, defence.name, seen, made.targets, pictures.labels)
            if defence.name == NOTHING:
                file = report.plot(self.out, f"{attacker.settings.name}-classes")
                plots.confusion(attacker.settings, seen["attacked"], made.targets, file)
            self.say(f"{attacker.settings.name}, {defence.name}: {np.mean(seen['attacked'] == made.targets):.4f}")

    def _seen(self, task: Task, name: str, state: str, defence: Defence, clean: Frames, made: Frames) -> Arrays:
        """Verdicts on pictures before and after an attack, `clean` and `attacked` (N,)."""
        step = f"{task.name}/{name}-{defence.name.replace(' ', '-')}"
        state = digest(made_by(__name__), state, defence.model_id, defence.name, self.seed, len(made))
        return self.cache.get(
            step, state, lambda: {"clean": verdicts(defence.logits, clean), "attacked": verdicts(defence.logits, made)}
        )

    def _by_gradients(
        self, task: Task, target: Bundle, pictures: LabelledPictures
    ) -> tuple[list[SuccessRow], list[TimeRow]]:
        """FGSM and PGD towards the same targets, and what each attack took, the generator among them."""
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
                seen = self._seen(task, name, state, defence, frames, made)
                successes += _rows(task.name, "white-box", name, eps, defence.name, seen, targets, labels)
                self.say(f"{task.name}, {name}, {defence.name}: {np.mean(seen['attacked'] == targets):.4f}")
        threads = int(found["threads"])
        return successes, [
            TimeRow(task.name, name, len(frames), float(seconds), threads)
            for name, seconds in zip((*GRADIENTS, "AI-GAN"), found["seconds"], strict=True)
        ]


def race(attacker: Attacker, target: Bundle, frames: Frames, labels: Labels, targets: Labels, seed: int) -> Arrays:
    """What FGSM and PGD make of `frames`, and the seconds of both and of the generator, in one run."""
    eps = attacker.settings.eps
    by_steps = [pgd(bare(target), frames, labels, targets, eps, seed, steps) for steps in GRADIENTS.values()]
    seconds = [each.seconds for each in (*by_steps, attack(attacker, frames, targets))]
    made: Arrays = {name: each.frames for name, each in zip(GRADIENTS, by_steps, strict=True)}
    return made | {"seconds": np.array(seconds), "threads": np.array(torch.get_num_threads())}


def _rows(
    task: str, knowledge: str, attack: str, eps: float, defence: str, seen: Arrays, targets: Labels, labels: Labels
) -> Iterator[SuccessRow]:
    """One row of all targets, and where nothing defends one of each."""
    attacked, clean = seen["attacked"], seen["clean"]
    for target in (-1, *(np.unique(targets).tolist() if defence == NOTHING else ())):
        part = np.ones(len(targets), bool) if target < 0 else targets == target
        hits = int((attacked[part] == targets[part]).sum())
        share = wilson(hits, int(part.sum()))
        yield SuccessRow(
            task, knowledge, attack, eps, defence, target, hits, int(part.sum()), *share,
            accuracy=float((attacked[part] == labels[part]).mean()), clean=float((clean[part] == labels[part]).mean()),
        )  # fmt: skip
