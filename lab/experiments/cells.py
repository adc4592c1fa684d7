"""Cells of a table: one defence under one attack, measured once, kept, and summed up as a row of a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks.contract import Defended, in_batches
from lab.experiments.cache import Arrays, Cache
from lab.results.csv_rows import write_rows
from lab.statistics import share_interval, wilson

BATCH: Final = 100


class Steps(Protocol):
    """Told how many steps will come, and of each one when it is done."""

    def expect(self, count: int) -> None:
        """So many steps more."""

    def done(self, what: str) -> None:
        """One of them."""


@dataclass(frozen=True)
class Scores:
    """Answers to n attacked pictures under `repeats` draws of the defence.

    `correct` and `hit` (repeats, n) bool: the answer is the label, and the target (nowhere without targets). `l_inf`
    and `rms` (n,): the largest change of a value, and the root of the mean squared change over all of them.
    """

    correct: NDArray[np.bool_]
    hit: NDArray[np.bool_]
    l_inf: NDArray[np.float64]
    rms: NDArray[np.float64]
    curve: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """Of an attack in rounds, (rounds, 2): after each one the share correct, and that whose target had been found."""

    def arrays(self) -> Arrays:
        """For the cache."""
        return {"correct": self.correct, "hit": self.hit, "l_inf": self.l_inf, "rms": self.rms, "curve": self.curve}


def scores_of(found: Arrays) -> Scores:
    """What `Scores.arrays` gave."""
    correct, hit = found["correct"].astype(np.bool_), found["hit"].astype(np.bool_)
    l_inf, rms, curve = (found[name].astype(np.float64) for name in ("l_inf", "rms", "curve"))
    return Scores(correct, hit, l_inf, rms, curve)


@torch.no_grad()
def right(defended: Defended, frames: Tensor, labels: Tensor, generator: torch.Generator) -> NDArray[np.bool_]:
    """Which of frames (n, C, H, W) get their label (n,) under one draw: (n,)."""
    answers: NDArray[np.bool_] = (_answers(defended, frames, labels, generator) == labels).cpu().numpy()
    return answers


def _answers(defended: Defended, frames: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    parts = in_batches(frames, labels, None, BATCH)
    return torch.cat([defended(part, generator).argmax(1) for part, _, _ in parts])


@torch.no_grad()
def score(
    defended: Defended,
    attacked: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    repeats: int,
    generator: torch.Generator,
) -> Scores:
    """Show `attacked` frames (n, C, H, W) in [0, 1] to a defended network, `repeats` times with fresh draws."""
    correct, hit = [], []
    for _ in range(repeats):
        answers = _answers(defended, attacked, labels, generator)
        correct.append((answers == labels).cpu().numpy())
        hit.append(np.zeros(len(labels), np.bool_) if targets is None else (answers == targets).cpu().numpy())
    change = (attacked - clean).flatten(1).double()
    l_inf, rms = change.abs().amax(1), change.square().mean(1).sqrt()
    return Scores(np.stack(correct), np.stack(hit), l_inf.cpu().numpy(), rms.cpu().numpy())


@dataclass(frozen=True)
class Row:
    """One cell, summed up."""

    subject: str
    """The network, by its bundle's name."""
    defence: str
    attack: str
    """A key of the plan."""
    label: str
    targeted: bool
    eps: float | None
    n: int
    repeats: int
    accuracy: float
    """Share of the pictures that get their label, mean over the draws, with its 95 % interval."""
    ci_low: float
    ci_high: float
    worst: float
    """Share that gets it under every one of the draws."""
    success: float | None
    """Share of the answers that are the target."""
    found: float | None
    """Share of the pictures whose attack stopped, because one draw gave the target."""
    l_inf: float
    rms: float


@dataclass(frozen=True)
class Cell:
    """What is measured under which name; `made_from` is the state of all that it depends on."""

    subject: str
    defence: str
    attack: str
    label: str
    targeted: bool
    eps: float | None
    made_from: str
    run: Callable[[], Scores]

    @property
    def place(self) -> str:
        """Its file in the cache."""
        kind = "-targeted" if self.targeted else ""
        return f"{self.subject}/{self.defence.replace(' ', '-').replace('/', '-')}/{self.attack}{kind}"

    def scores(self, cache: Cache) -> Scores:
        """Out of the cache, or measured now."""
        return scores_of(cache.get(self.place, self.made_from, lambda: self.run().arrays()))

    def row(self, found: Scores) -> Row:
        """Its row."""
        repeats, count = found.correct.shape
        accuracy = share_interval(found.correct)
        return Row(
            subject=self.subject,
            defence=self.defence,
            attack=self.attack,
            label=self.label,
            targeted=self.targeted,
            eps=self.eps,
            n=count,
            repeats=repeats,
            accuracy=accuracy.value,
            ci_low=accuracy.low,
            ci_high=accuracy.high,
            worst=wilson(int(found.correct.all(0).sum()), count).value,
            success=float(found.hit.mean()) if self.targeted else None,
            found=float(found.curve[-1, 1]) if len(found.curve) else None,
            l_inf=float(found.l_inf.mean()),
            rms=float(found.rms.mean()),
        )


@dataclass(frozen=True)
class Point:
    """One round of an attack in rounds."""

    subject: str
    defence: str
    attack: str
    round: int
    accuracy: float
    found: float


def measure(cells: Sequence[Cell], cache: Cache, file: Path, steps: Steps, curves: Path | None = None) -> list[Row]:
    """Measure the cells in order and write their rows to `file`, all that are done after each one.

    Attacks in rounds also leave their points in `curves`.

    A run that was stopped goes on where it was: what is in the cache is not measured again; no picture counts twice.
    """
    steps.expect(len(cells))
    rows, points = [], list[Point]()
    for cell in cells:
        found = cell.scores(cache)
        row = cell.row(found)
        rows.append(row)
        write_rows(file, rows, Row)
        for number, (accuracy, share) in enumerate(found.curve.tolist(), start=1):
            points.append(Point(cell.subject, cell.defence, cell.attack, number, accuracy, share))
        if curves is not None and len(found.curve):
            write_rows(curves, points, Point)
        hit = "" if row.success is None else f", target {row.success:.3f}"
        steps.done(f"{row.subject}, {row.defence}: {row.label}: accuracy {row.accuracy:.3f}{hit}, {row.n} pictures")
    return rows
