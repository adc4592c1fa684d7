"""Plots of accuracy: under PGD with exact gradients against ε, and under each attack against the steepness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from lab.experiments.cells import Row
from lab.experiments.qusecnets.steepness import Point


def by_eps(rows: Sequence[Row], file: Path) -> None:
    """Plot a panel for each data set, with a line for each network."""
    sets = list(dict.fromkeys(row.subject.partition("-")[0] for row in rows))
    figure = Figure(figsize=(5.2 * max(1, len(sets)), 3.6))
    for place, data in enumerate(sets, start=1):
        axes = figure.add_subplot(1, len(sets), place)
        palette = colormaps["tab20"]
        names = dict.fromkeys(row.subject for row in rows if row.subject.startswith(f"{data}-"))
        for number, name in enumerate(names):
            own = [row for row in rows if row.subject == name]
            points = sorted(
                (row.eps or 0.0, row.accuracy, row.ci_low, row.ci_high)
                for row in own
                if row.attack == "clean" or (row.attack.startswith("pgd-") and row.attack != "pgd-long")
            )
            if not points:
                continue
            eps, accuracy, low, high = zip(*points, strict=True)
            axes.plot(eps, accuracy, color=palette(number), marker="o", markersize=3, label=name)
            axes.fill_between(eps, low, high, color=palette(number), alpha=0.15)
        axes.set(xlabel="ε (L∞)", ylabel="accuracy", ylim=(0, 1.02), title=data)
        axes.legend(fontsize=7)
    _save(figure, file)


def by_steepness(points: Sequence[Point], file: Path) -> None:
    """Plot the accuracy of one network against the steepness of its layer, with a line for each attack."""
    figure = Figure(figsize=(5.6, 3.6))
    axes = figure.add_subplot()
    steepness = [point.steepness for point in points]
    lines: dict[str, list[float | None]] = {
        "clean": [point.clean for point in points],
        "FGSM": [point.fgsm for point in points],
        "PGD, exact gradients": [point.pgd for point in points],
        "BPDA by the identity": [point.bpda for point in points],
        "transfer": [point.transfer for point in points],
        "worst of these": [point.worst for point in points],
    }
    for name, accuracy in lines.items():
        axes.plot(steepness, [float("nan") if a is None else a for a in accuracy], marker="o", markersize=3, label=name)
    zero = [point.near_unmoved for point in points]
    axes.plot(steepness, zero, color="grey", linestyle=":", label="derivative 0, near the threshold")
    axes.set(xlabel="steepness z", ylabel="share", xscale="log", ylim=(0, 1.02))
    axes.legend(fontsize=7)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without date and version in the metadata, equal figures give equal files.
    figure.savefig(file, dpi=100, bbox_inches="tight", metadata={"Software": None})
