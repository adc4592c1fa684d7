"""Accuracy under PGD with exact gradients against ε, a line a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lab.experiments.cells import Row


def by_eps(rows: Sequence[Row], file: Path) -> None:
    """A panel for each data set."""
    sets = list(dict.fromkeys(row.subject.partition("-")[0] for row in rows))
    figure = Figure(figsize=(5.2 * max(1, len(sets)), 3.6))
    for place, data in enumerate(sets, start=1):
        axes = figure.add_subplot(1, len(sets), place)
        for name in dict.fromkeys(row.subject for row in rows if row.subject.startswith(f"{data}-")):
            own = [row for row in rows if row.subject == name]
            points = sorted(
                (row.eps or 0.0, row.accuracy, row.ci_low, row.ci_high)
                for row in own
                if row.attack == "clean" or (row.attack.startswith("pgd-") and row.attack != "pgd-long")
            )
            eps, accuracy, low, high = zip(*points, strict=True)
            axes.plot(eps, accuracy, marker="o", markersize=3, label=name)
            axes.fill_between(eps, low, high, alpha=0.15)
        axes.set(xlabel="ε (L∞)", ylabel="accuracy", ylim=(0, 1.02), title=data)
        axes.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version, so that the same figures give the same file.
    figure.savefig(file, dpi=100, bbox_inches="tight", metadata={"Software": None})
