"""The page's section on a steeper layer: a sentence, a table and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.experiments.cells import Row
from lab.experiments.qusecnets import plots
from lab.experiments.qusecnets.published import REQUIREMENTS
from lab.experiments.qusecnets.steepness import BASE, EPS, STEEP, TEST, Point, chosen
from lab.results.markdown import markdown

PLOT: Final = "accuracy-by-steepness.png"


def steep_verdict(points: Sequence[Point], rows: Sequence[Row]) -> list[str]:
    """Return one sentence: the required figure at the chosen steepness, and whether it shows a defence."""
    own = {row.attack: row for row in rows if row.subject == STEEP and not row.targeted}
    if not points or not {"clean", "fgsm", "bpda-identity", "worst"} <= set(own):
        return [f"{STEEP}: not measured"]
    fgsm, clean, bpda, worst = (own[key] for key in ("fgsm", "clean", "bpda-identity", "worst"))
    wanted = next(each for each in REQUIREMENTS if each.attack == "fgsm")
    word = "aim" if fgsm.accuracy >= wanted.aim else "must" if fgsm.accuracy >= wanted.must else "MISSED"
    z = chosen(points)
    unmoved = next(point.near_unmoved for point in points if point.split == TEST and point.steepness == z)
    vanishes = unmoved > 0.5 and bpda.accuracy < fgsm.accuracy
    zero = f"the derivative is exactly 0 for {unmoved:.1%} of the values that {EPS:g} could carry over the threshold"
    why = f"{zero} (clean {clean.accuracy:.3f})"
    if vanishes:
        word = "no finding"
        why = f"THIS IS A VANISHING GRADIENT, NOT A DEFENCE: {zero}, and FGSM leaves them (clean {clean.accuracy:.3f})"
    return [
        f"{STEEP}, the same weights at z = {z:g} (chosen on held-out training pictures; the paper's text has z = 50, "
        f"the row of {BASE}), {fgsm.label}, white-box: {fgsm.accuracy:.3f} of {fgsm.n}: {word} (paper "
        f"{wanted.paper:.3f}, must {wanted.must}, aim {wanted.aim}); {why}; BPDA leaves {bpda.accuracy:.3f}, the worst "
        f"of all attacks {worst.accuracy:.3f} of {worst.n}"
    ]


def steep_section(points: Sequence[Point], out: Path) -> list[str]:
    """Return the accuracy over z as a table and a plot, or nothing if it was not measured."""
    if not points:
        return []
    plots.by_steepness([point for point in points if point.split == TEST], out / PLOT)
    return ["## A steeper layer", TEXT, _table(points), f"![accuracy by z]({PLOT})"]


def _table(points: Sequence[Point]) -> str:
    lines = [
        [f"{point.steepness:g}", point.split, str(point.n), f"{point.unmoved:.3f}", f"{point.near_unmoved:.3f}"]
        + ["" if value is None else f"{value:.3f}" for value in
           (point.clean, point.fgsm, point.pgd, point.bpda, point.transfer, point.worst)]
        for point in points
    ]  # fmt: skip
    zero = ("derivative 0", "derivative 0, near")
    heads = ["z", "pictures", "n", *zero, "clean", "FGSM", "PGD, exact", "BPDA", "transfer", "worst of these"]
    return markdown(heads, lines)


TEXT: Final = (
    f"The weights of `{BASE}` behind layers of other steepness, L∞ {EPS:g}. `derivative 0` is the share of the "
    "pictures' values whose gradient is exactly zero in float32: FGSM, which takes its sign, leaves them as they are; "
    "`near` counts only values within ε of the threshold, for no other can cross it. Where FGSM's accuracy rises with "
    "that share and that under BPDA and transfer does not, FGSM fails for want of a gradient. z of "
    f"`{STEEP}` is the one of these at which FGSM does least on *held-out* training pictures without costing clean "
    "accuracy. The paper gives z = 50 for constant levels (section IV-A) and 5 to 50 as its range, so that this is a "
    "departure from it; at its own z we do not reach its figure, and its text does not name the cause."
)
