"""The input of the checklist's points, and the verdict on a point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from lab.red_team import signs
from lab.red_team.defences import Defence
from lab.red_team.outcomes import UNLIKELY
from lab.statistics import least_wins

Status = Literal["passed", "failed", "not run"]
FEW: Final = next(count for count in range(1, 100) if least_wins(count, UNLIKELY) <= count)
"""Fewest pictures on which one attack can be significantly stronger than another."""


class Verdict(NamedTuple):
    """The verdict on a point, and its reason."""

    status: Status
    why: str


@dataclass(frozen=True)
class Evidence:
    """The input of the checklist's points."""

    defence: Defence
    outcomes: signs.Outcomes
    times: int

    @property
    def classes(self) -> int:
        """The number of classes of the network."""
        return len(self.defence.bundle.settings.classes)

    def missing(self, names: Iterable[str]) -> Verdict | None:
        """Return `not run` if one of these jobs has no outcome."""
        lacking = [name for name in names if name not in self.outcomes]
        return Verdict("not run", f"lacks {', '.join(lacking)}") if lacking else None

    def passed(self, names: Iterable[str], why: str) -> Verdict:
        """Return `passed` by these jobs, with the number of pictures, or `not run` if they are too few for it."""
        count = self.common(names)
        if count < FEW:
            return Verdict("not run", f"{count} pictures, of at least {FEW} needed: {why}")
        return Verdict("passed", f"{why} (the first {count} pictures)")

    def shares(self, names: Sequence[str]) -> dict[str, str]:
        """Return the accuracy under each of these jobs in words, on the first pictures, which all of them met."""
        count = self.common(names)
        return {name: f"{self.outcomes[name].right[:count].mean():.1%}" for name in names}

    def common(self, names: Iterable[str]) -> int:
        """Return the number of first pictures that all of these jobs met."""
        return min((int(self.outcomes[name].compared.sum()) for name in names), default=0)
