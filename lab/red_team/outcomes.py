"""The outcome of a job on the pictures, and the comparison of two jobs on their common pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.red_team.jobs import Job
from lab.red_team.plan import MAIN
from lab.statistics import Interval, mean_interval, sign_test, wilson

UNLIKELY: Final = 0.01
"""Significance level of a difference. With about ten signs, one false alarm in ten runs is acceptable."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job on the first n pictures; fewer than planned if the time ran out.

    `right` (n,) is the share of submissions with the correct answer. `survived` (n,) is true if all were correct. `met`
    (n,) is true if the picture was attacked, or needed no attack because no clean submission is correct. `reached` (n,)
    is the share of submissions with the target class, for targeted attacks. `linf` is the largest change.
    """

    job: Job
    right: NDArray[np.float64]
    survived: NDArray[np.bool_]
    met: NDArray[np.bool_]
    reached: NDArray[np.float64]
    linf: float
    seconds: float

    @property
    def pictures(self) -> int:
        """The number of first pictures that were processed."""
        return len(self.met)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """The pictures (n,) chosen independently of other attacks. Figures refer to these."""
        return np.arange(self.pictures) < (self.pictures if self.job.compared is None else self.job.compared)

    @property
    def accuracy(self) -> Interval:
        """The accuracy of one submission per picture."""
        return mean_share(self.right[self.compared])

    @property
    def worst(self) -> Interval:
        """The share of pictures for which every submission was classified correctly."""
        left = self.survived[self.compared]
        return wilson(int(left.sum()), len(left))

    @property
    def success(self) -> float | None:
        """The share of submissions classified as the target, for targeted attacks."""
        return float(self.reached[self.compared].mean()) if self.job.effort.targeted else None


def mean_share(values: NDArray[np.float64]) -> Interval:
    """Return the mean of shares (n,), one per picture, with Wilson's interval if each is 0 or 1."""
    if bool(np.isin(values, (0.0, 1.0)).all()):
        return wilson(int(values.sum()), len(values))
    return mean_interval(values)


class Comparison(NamedTuple):
    """Two jobs on their common pictures: the number that only the first breaks, and that only the second breaks."""

    pictures: int
    only_first: int
    only_second: int

    @property
    def p(self) -> float:
        """The probability of this many for the first by chance, if it is no stronger."""
        return sign_test(self.only_first, self.only_second)

    @property
    def gain(self) -> float:
        """The additional share of the pictures that the first breaks; below 0 if it breaks fewer."""
        return (self.only_first - self.only_second) / self.pictures if self.pictures else 0.0

    @property
    def first_stronger(self) -> bool:
        """True if the first is significantly stronger."""
        return self.p < UNLIKELY

    def described(self) -> str:
        """Return the comparison in words."""
        return f"{self.only_first} of {self.pictures} pictures against {self.only_second}, p = {self.p:.2g}"


def compare(first: Outcome, second: Outcome, *, often: bool = False) -> Comparison:
    """Compare two jobs on the common pictures chosen independently of other attacks.

    A picture is broken if one of its submissions is misclassified. With `often`, at least half of them must be, so that
    attacks with different numbers of submissions compare fairly.
    """
    count = min(first.pictures, second.pictures)
    both = (first.met & first.compared)[:count] & (second.met & second.compared)[:count]
    one, other = ((each.right[:count] > 0.5 if often else each.survived[:count])[both] for each in (first, second))
    return Comparison(int(both.sum()), int((~one & other).sum()), int((one & ~other).sum()))


def attacked_pictures(outcomes: Mapping[str, Outcome]) -> int:
    """Return how many of the first pictures met the main attack, or without it any attack on the defence itself."""
    if MAIN in outcomes:
        return outcomes[MAIN].pictures
    attacks = (each for each in outcomes.values() if each.job.counts and each.job.effort.kind != "clean")
    return max((each.pictures for each in attacks), default=0)


def worst_case(outcomes: Iterable[Outcome], pictures: int) -> NDArray[np.bool_]:
    """Return which of the first pictures (n,) survive every attack on the defence itself, under every submission."""
    standing = np.ones(pictures, np.bool_)
    for outcome in outcomes:
        if outcome.job.counts:
            count = min(pictures, outcome.pictures)
            standing[:count] &= (outcome.survived | ~outcome.met)[:count]
    return standing
