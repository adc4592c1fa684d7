"""Cells of scores: one defence under one attack, picture by picture, summed up as a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks.contract import Defended, in_batches
from lab.cache import Arrays, Cache, digest
from lab.experiments.harness.cell import Cell, Tables
from lab.statistics import share_interval, wilson

BATCH: Final = 100


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
    """An attack in rounds leaves (rounds, 2): after each one the share correct, and the share of targets found."""

    def arrays(self) -> Arrays:
        """Return the arrays by name, for the cache."""
        return {"correct": self.correct, "hit": self.hit, "l_inf": self.l_inf, "rms": self.rms, "curve": self.curve}


def scores_of(found: Arrays) -> Scores:
    """Return the scores of `Scores.arrays`."""
    correct, hit = found["correct"].astype(np.bool_), found["hit"].astype(np.bool_)
    l_inf, rms, curve = (found[name].astype(np.float64) for name in ("l_inf", "rms", "curve"))
    return Scores(correct, hit, l_inf, rms, curve)


@torch.no_grad()
def right(defended: Defended, frames: Tensor, labels: Tensor, generator: torch.Generator) -> NDArray[np.bool_]:
    """Return, for frames (n, C, H, W), whether each gets its label (n,) under one draw: (n,)."""
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
class Point:
    """One round of an attack in rounds."""

    subject: str
    defence: str
    attack: str
    round: int
    accuracy: float
    found: float


TABLES: Final = {"rows": Row, "rounds": Point}
"""The tables of a cell of scores."""


@dataclass(frozen=True)
class Attack:
    """The key of a cell of scores: the network, its defence, and the attack with its bound."""

    subject: str
    defence: str
    attack: str
    label: str
    targeted: bool
    eps: float | None

    @property
    def name(self) -> str:
        """The name of the cell: `mnist-cq2/cw-targeted`, with the defence where the network has several."""
        kind = "-targeted" if self.targeted else ""
        return f"{self.subject}/{self.defence}/{self.attack}{kind}"

    def row(self, found: Scores) -> Row:
        """Return the row with the scores, summed up."""
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

    def points(self, found: Scores) -> list[Point]:
        """Return the rounds of the attack, if it has any."""
        return [
            Point(self.subject, self.defence, self.attack, number, accuracy, share)
            for number, (accuracy, share) in enumerate(found.curve.tolist(), start=1)
        ]


@dataclass(frozen=True)
class Scored:
    """A cell of scores. The scores of each picture stay in the cache, for cells that sum up others."""

    attack: Attack
    code: tuple[str, ...]
    score: Callable[[], Scores]
    settings: object
    files: tuple[Path, ...]
    seconds: float
    seed: int
    cache: Cache

    def scores(self) -> Scores:
        """Return the scores from the cache, or measure them."""
        cell = self.cell
        state = digest(cell.code_state, cell.input_state)
        name = cell.name.replace(" ", "-").replace("+", "and")
        return scores_of(self.cache.get(name, state, lambda: self.score().arrays()))

    @cached_property
    def cell(self) -> Cell:
        """The cell, with a row and the rounds of the attack."""

        def measure() -> Tables:
            found = self.scores()
            return {"rows": [self.attack.row(found)], "rounds": self.attack.points(found)}

        settings = (self.attack, self.settings)
        return Cell(self.attack.name, self.code, measure, settings, self.files, self.seconds, self.seed)
