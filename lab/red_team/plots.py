"""The curves: accuracy over ε, over steps and over draws per gradient, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from lab.red_team.outcomes import Outcome
from lab.red_team.plan import CLEAN, MAIN

Curve = Sequence[tuple[float, Outcome]]
LABELS: Final = {"strength": "L∞ bound ε", "steps": "steps of EOT-PGD", "eot": "draws a gradient"}


def curves(outcomes: Mapping[str, Outcome]) -> dict[str, Curve]:
    """Return the points of each measured curve, by its group. The main attack is one of the steps."""
    found: dict[str, list[tuple[float, Outcome]]] = {}
    for name, outcome in outcomes.items():
        group, _, value = name.partition("/")
        if group in LABELS and value:
            found.setdefault(group, []).append((float(value), outcome))
    if "steps" in found and MAIN in outcomes:
        found["steps"].append((outcomes[MAIN].job.effort.steps, outcomes[MAIN]))
    if "steps" in found and "one-step" in outcomes:
        found["steps"].append((1, outcomes["one-step"]))
    return {group: sorted(points, key=lambda point: point[0]) for group, points in found.items()}


def draw(outcomes: Mapping[str, Outcome], classes: int, file: Path) -> bool:
    """Draw every curve of at least two points side by side. Return whether any curve was drawn."""
    shown = {group: points for group, points in curves(outcomes).items() if len(points) > 1}
    if not shown:
        return False
    figure = Figure(figsize=(4.4 * len(shown), 3.4))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (group, points) in zip(panels, shown.items(), strict=True):
        _panel(axes, group, points)
        clean = outcomes[CLEAN].accuracy.value
        axes.axhline(clean, color="grey", linewidth=0.8, label="clean")
        if group == "strength":
            axes.axhline(1 / classes, color="grey", linewidth=0.8, linestyle="dotted", label="guessing")
        axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Metadata without date and version, so that equal figures give equal files.
    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return True


def _panel(axes: Any, group: str, points: Curve) -> None:
    at = [value for value, _ in points]
    for label, marker, intervals in (
        ("one submission", "o", [outcome.accuracy for _, outcome in points]),
        ("worst of all submissions", "s", [outcome.worst for _, outcome in points]),
    ):
        values = [interval.value for interval in intervals]
        below = [interval.value - interval.low for interval in intervals]
        above = [interval.high - interval.value for interval in intervals]
        axes.errorbar(at, values, yerr=(below, above), marker=marker, markersize=4, capsize=2, label=label)
    axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel=LABELS[group], ylabel="accuracy")
    axes.grid(alpha=0.3)
