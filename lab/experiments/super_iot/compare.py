"""Paired comparisons of the default with paper mode, and with the baselines at equal clean accuracy.

A defence with a parameter trades clean accuracy for attacked accuracy, so single settings do not compare. For every
setting of a baseline, with clean accuracy c, the default is taken at the drop ratio with the same clean accuracy.
Between two neighbouring ratios of the list, its outcomes are mixed linearly. A camera gets this mixture if it draws
between the two ratios at random, frame by frame. Below the least ratio the neighbour is the bare network. If even the
largest ratio has a clean accuracy above c, this ratio is taken unmixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lab.experiments.super_iot.plan import CLEAN, AttackRow
from lab.experiments.super_iot.rows import Comparison
from lab.statistics import mean_interval

Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """One defence at one parameter: `correct` (repeats, n) by attack row, including the clean row."""

    name: str
    ratio: float | None
    correct: Mapping[AttackRow, Correct]

    def share(self, row: AttackRow) -> NDArray[np.float64]:
        """Return the share of repeats in which each picture was classified correctly, (n,)."""
        share: NDArray[np.float64] = self.correct[row].mean(0, dtype=np.float64)
        return share

    @property
    def clean(self) -> float:
        """Clean accuracy, relative to the bare network."""
        return float(self.correct[CLEAN].mean())


@dataclass(frozen=True)
class Mixture:
    """A mixture with `weight` of `nearer`, and the rest of `farther`, which drops more."""

    nearer: Setting
    farther: Setting
    weight: float

    @property
    def ratio(self) -> float:
        """The mean drop ratio. The bare network drops nothing."""
        return self.weight * (self.nearer.ratio or 0.0) + (1 - self.weight) * (self.farther.ratio or 0.0)

    def share(self, row: AttackRow) -> NDArray[np.float64]:
        """Return the share of repeats in which each picture is classified correctly, (n,)."""
        return self.weight * self.nearer.share(row) + (1 - self.weight) * self.farther.share(row)


def at_clean_accuracy(wanted: float, bare: Setting, ours: list[Setting]) -> Mixture:
    """Return the default with clean accuracy `wanted`, at the largest such drop ratio.

    `ours` is one setting for each ratio, in rising order.
    """
    line = [bare, *ours]
    for nearer, farther in reversed(list(pairwise(line))):
        if nearer.clean >= wanted >= farther.clean:
            span = nearer.clean - farther.clean
            return Mixture(nearer, farther, (wanted - farther.clean) / span if span else 0.0)
    return Mixture(line[-1], line[-1], 0.0)


def against_paper(judge: str, ours: list[Setting], paper: list[Setting], rows: list[AttackRow]) -> list[Comparison]:
    """Compare both modes at the same ratio, for every row and every ratio at which both were measured."""
    found = []
    for mine in ours:
        for theirs in paper:
            if mine.ratio != theirs.ratio:
                continue
            for row in rows:
                if row in mine.correct and row in theirs.correct:
                    pair = (mine.share(row), theirs.share(row))
                    found.append(_comparison(judge, "paper", row, theirs.name, mine.ratio, theirs.clean, pair))
    return found


def matched(
    judge: str, bare: Setting, ours: list[Setting], baselines: list[Setting], rows: list[AttackRow]
) -> list[Comparison]:
    """Compare every setting of every baseline with the default at equal clean accuracy, for every attack row."""
    found = []
    for baseline in baselines:
        for row in rows:
            line = [setting for setting in ours if row in setting.correct]
            if row == CLEAN or not line or row not in baseline.correct:
                continue
            mixture = at_clean_accuracy(baseline.clean, bare, line)
            pair = (mixture.share(row), baseline.share(row))
            found.append(_comparison(judge, "matched", row, baseline.name, mixture.ratio, baseline.clean, pair))
    return found


def _comparison(
    judge: str,
    kind: str,
    row: AttackRow,
    against: str,
    ratio: float | None,
    clean: float,
    pair: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Comparison:
    ours, theirs = pair
    difference = mean_interval(ours - theirs)
    return Comparison(
        judge=judge,
        kind=kind,
        attack=row.key,
        label=row.label,
        targeted=row.targeted,
        against=against,
        r=ratio,
        n=len(ours),
        clean=clean,
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        difference=difference.value,
        ci_low=difference.low,
        ci_high=difference.high,
    )
