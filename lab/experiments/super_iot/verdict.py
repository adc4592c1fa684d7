"""The verdict: required and measured figures, and the two comparisons in which no cell may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lab.experiments.super_iot.defences import DEFAULT
from lab.experiments.super_iot.plan import PAPER_ROWS
from lab.experiments.super_iot.published import PSNR_REQUIREMENTS, REQUIREMENTS, Requirement
from lab.experiments.super_iot.rows import Comparison, QualityRow, Row

LABELS: Final = {row.key: row.label for row in PAPER_ROWS}


@dataclass(frozen=True)
class Finding:
    """A requirement and its measured figure; None if no row contains it."""

    requirement: Requirement
    label: str
    judge: str
    measured: float | None
    low: float | None
    high: float | None
    n: int
    """Pictures over which it is a share or a mean."""
    bare: float | None = None
    """The bare network's accuracy under the same attack; None for a figure without an attack."""

    @property
    def reached(self) -> str:
        """The verdict, with a note if the bare network meets the bound too: then the figure shows no defence."""
        note = self.bare is not None and self.bare >= self.requirement.must
        return f"{self.verdict}; bare network: {self.bare:.3f}" if note else self.verdict

    @property
    def verdict(self) -> str:
        """`aim`, `must`, `missed` or `not measured`, by the measured value itself."""
        if self.measured is None:
            return "not measured"
        if self.measured >= self.requirement.aim:
            return "aim"
        return "must" if self.measured >= self.requirement.must else "missed"


def row_for(rows: Sequence[Row], requirement: Requirement, defence: str = DEFAULT) -> Row | None:
    """Return the rounded row of a requirement: over all pictures if available, else from the sweep."""
    for scope in ("all", "sweep"):
        for row in rows:
            place = (row.scope, row.attack, row.targeted, row.rounded, row.defence, row.r)
            if place == (scope, requirement.attack, requirement.targeted, True, defence, requirement.r):
                return row
    return None


def findings(judge: str, rows: Sequence[Row]) -> list[Finding]:
    """Return every requirement on accuracy and restored shares, for one judge."""
    found = []
    for requirement in REQUIREMENTS:
        row = row_for(rows, requirement)
        if row is None:
            found.append(Finding(requirement, LABELS[requirement.attack], judge, None, None, None, 0))
        elif requirement.what == "restored":
            share = row.restored, row.restored_low, row.restored_high
            found.append(Finding(requirement, row.label, judge, *share, _broken(row)))
        else:
            share = row.accuracy, row.ci_low, row.ci_high
            bare = None if row.attack == "clean" else row.undefended
            found.append(Finding(requirement, row.label, judge, *share, row.n, bare))
    return found


def _broken(row: Row) -> int:
    """Return the number of pictures that the attack breaks on the bare network: `restored` is a share of these."""
    return round(row.n * (1 - row.undefended))


def quality_findings(rows: Sequence[QualityRow]) -> list[Finding]:
    """Return the requirements on the PSNR of the default, with the cameras' masks."""
    found = []
    for requirement in PSNR_REQUIREMENTS:
        row = next((x for x in rows if (x.mode, x.masks, x.r) == (DEFAULT, "spread", requirement.r)), None)
        if row is None:
            found.append(Finding(requirement, "PSNR in dB", "", None, None, None, 0))
        else:
            found.append(Finding(requirement, "PSNR in dB", "", row.psnr, row.ci_low, row.ci_high, row.n))
    return found


@dataclass(frozen=True)
class ComparisonVerdict:
    """The summary of a set of comparisons. It holds if no interval is entirely below zero."""

    cells: int
    below: tuple[Comparison, ...]
    behind: int
    """Cells with a negative difference whose interval contains zero."""

    @property
    def holds(self) -> bool:
        """True if no cell is below; False without any comparison."""
        return bool(self.cells) and not self.below


def by_clean_accuracy(comparisons: Sequence[Comparison]) -> tuple[ComparisonVerdict, ComparisonVerdict]:
    """Return the summaries of the matched comparisons, and of those with baselines that keep fewer clean pictures.

    The latter are those at our largest drop ratio, which is taken unmixed for them.
    """
    chosen = [c for c in comparisons if c.kind == "matched"]
    largest = max((c.r for c in chosen if c.r is not None), default=None)
    matched = [c for c in chosen if c.r != largest]
    return compared(matched, "matched"), compared([c for c in chosen if c.r == largest], "matched")


def compared(comparisons: Sequence[Comparison], kind: str) -> ComparisonVerdict:
    """Return the summary of the comparisons of one kind, `paper` or `matched`."""
    chosen = [c for c in comparisons if c.kind == kind]
    below = tuple(sorted((c for c in chosen if c.verdict == "below"), key=lambda c: c.difference))
    return ComparisonVerdict(len(chosen), below, sum(c.verdict == "level" and c.difference < 0 for c in chosen))
