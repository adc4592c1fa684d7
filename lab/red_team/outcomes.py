"""What a job left of the pictures, and how two jobs compare on the pictures that both met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.red_team.jobs import Job
from lab.statistics import Interval, mean_interval, sign_test, wilson

UNLIKELY: Final = 0.01
"""The p from which on a difference counts: there are about ten signs, and one false alarm in ten runs is enough."""


@dataclass(frozen=True)
class Outcome:
    """A job on the first n pictures: less than it was meant for when the time ran out.

    `right` (n,) is the share of submissions with the right answer, `survived` (n,) whether all were right; `met` (n,)
    whether the picture was attacked or needed no attack because no clean submission is right. `reached` (n,) is the
    share of submissions with the target, of targeted attacks. `linf` is the largest change.
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
        """How many of the first pictures were dealt with."""
        return len(self.met)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """The pictures (n,) that were chosen without a look at other attacks: figures are of these."""
        return np.arange(self.pictures) < (self.pictures if self.job.compared is None else self.job.compared)

    @property
    def accuracy(self) -> Interval:
        """Of one submission a picture."""
        return mean_share(self.right[self.compared])

    @property
    def worst(self) -> Interval:
        """The share of pictures for which every submission was answered rightly."""
        left = self.survived[self.compared]
        return wilson(int(left.sum()), len(left))

    @property
    def success(self) -> float | None:
        """Of targeted attacks, the share of submissions that are taken for the target."""
        return float(self.reached[self.compared].mean()) if self.job.effort.targeted else None


def mean_share(values: NDArray[np.float64]) -> Interval:
    """The mean of shares (n,), one a picture, with Wilson's interval where each is 0 or 1."""
    if bool(np.isin(values, (0.0, 1.0)).all()):
        return wilson(int(values.sum()), len(values))
    return mean_interval(values)


class Comparison(NamedTuple):
    """Two jobs on the pictures that both met: how many only the one breaks, and how many only the other."""

    pictures: int
    only_first: int
    only_second: int

    @property
    def p(self) -> float:
        """How likely so many for the first are by chance, if it is no stronger."""
        return sign_test(self.only_first, self.only_second)

    @property
    def gain(self) -> float:
        """The share of the pictures by which the first breaks more; below 0 where it breaks less."""
        return (self.only_first - self.only_second) / self.pictures if self.pictures else 0.0

    @property
    def first_stronger(self) -> bool:
        """Whether chance is an unlikely reason."""
        return self.p < UNLIKELY

    def said(self) -> str:
        """In words."""
        return f"{self.only_first} of {self.pictures} pictures against {self.only_second}, p = {self.p:.2g}"


def compare(first: Outcome, second: Outcome, *, often: bool = False) -> Comparison:
    """Who breaks what the other does not, of the pictures that both met without regard to other attacks.

    A picture is broken when one of its submissions is answered wrongly; with `often`, when at least half of them are,
    so that attacks of which one is shown more often compare fairly.
    """
    count = min(first.pictures, second.pictures)
    both = (first.met & first.compared)[:count] & (second.met & second.compared)[:count]
    one, other = ((each.right[:count] > 0.5 if often else each.survived[:count])[both] for each in (first, second))
    return Comparison(int(both.sum()), int((~one & other).sum()), int((one & ~other).sum()))


def worst_case(outcomes: Iterable[Outcome], pictures: int) -> NDArray[np.bool_]:
    """The first pictures (n,) that every attack on the defence itself has left standing, under every submission."""
    standing = np.ones(pictures, np.bool_)
    for outcome in outcomes:
        if outcome.job.counts:
            count = min(pictures, outcome.pictures)
            standing[:count] &= (outcome.survived | ~outcome.met)[:count]
    return standing
