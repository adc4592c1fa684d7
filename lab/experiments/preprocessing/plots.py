"""Figure 4: accuracy and success over rounds of BPDA and BPDA + EOT. Accuracy over ε and over the draws of EOT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from lab.experiments.cells import Point, Row


def rounds(points: Sequence[Point], file: Path) -> None:
    """Plot a panel each for BPDA and for BPDA + EOT, clean and current. Accuracy is solid, success dashed."""
    kinds = [kind for kind in ("bpda", "eot-clean", "eot-current") if any(p.attack == kind for p in points)]
    if not kinds:
        return
    palette = colormaps["tab20"]
    colours = {name: palette(number) for number, name in enumerate(dict.fromkeys(p.defence for p in points))}
    figure = Figure(figsize=(5.6 * len(kinds), 4.2))
    for place, kind in enumerate(kinds, start=1):
        axes = figure.add_subplot(1, len(kinds), place)
        for name in dict.fromkeys(p.defence for p in points if p.attack == kind):
            own = [p for p in points if (p.attack, p.defence) == (kind, name)]
            at, colour = [p.round for p in own], colours[name]
            axes.plot(at, [p.accuracy for p in own], color=colour, linewidth=1, label=name)
            axes.plot(at, [p.found for p in own], color=colour, linewidth=1, linestyle="--")
        axes.set(xlabel="round", ylim=(-0.02, 1.02), title=_TITLES[kind])
        axes.set_ylabel("as the paper counts: ACC solid, ASR dashed")
        axes.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    _save(figure, file)


_TITLES = {
    "bpda": "BPDA",
    "eot-clean": "BPDA + EOT(30) at the clean picture",
    "eot-current": "BPDA + EOT(30) at the current picture",
}


def samples(rows: Sequence[Row], file: Path) -> None:
    """Plot our function's accuracy over the draws of EOT (left), and over ε with ten draws (right)."""
    ours = [row for row in rows if row.defence == "ours" and not row.targeted]
    sizes: list[tuple[float, Row]] = [(float(row.attack.split("-")[1]), row) for row in ours if row.attack in SIZES]
    bounds = [
        ((row.eps or 0.0) * 255, row) for row in ours
        if row.attack == "clean" or (row.attack.startswith("eot-10") and not row.attack.endswith("l2"))
    ]  # fmt: skip
    bounds.sort(key=lambda point: point[0])
    if not sizes:
        return
    figure = Figure(figsize=(9, 3.4))
    panels: list[tuple[list[tuple[float, Row]], str]] = [(sizes, "draws a step"), (bounds, "ε · 255 (L∞)")]
    for place, (points, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, place)
        for what, style in (("accuracy", "-"), ("worst", ":")):
            values = [getattr(row, what) for _, row in points]
            axes.plot([x for x, _ in points], values, f"C0{style}", marker="o", markersize=3, label=what)
        axes.set(xlabel=label, ylabel="accuracy", ylim=(-0.02, 1.02))
        axes.legend(fontsize=7)
    _save(figure, file)


SIZES = ("eot-1", "eot-3", "eot-10", "eot-30")


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without date and version in the metadata, equal figures give equal files.
    figure.savefig(file, dpi=100, bbox_inches="tight", metadata={"Software": None})
