"""The experiment's pictures: entropies (Figure 6), generated frames (Figures 7 and 8), and the triggers (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.experiments.codefend.subjects import Subject

SHOWN = 8


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version, so that the same figures give the same file.
    figure.savefig(file, dpi=90, bbox_inches="tight", metadata={"Software": None})


def entropies(parts: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64], float]], file: Path) -> None:
    """Figure 6: of each (name, clean bits, stamped bits, threshold) a histogram of both."""
    columns = min(3, len(parts))
    lines = -(-len(parts) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines))
    for place, (name, clean, stamped, threshold) in enumerate(parts, start=1):
        axes = figure.add_subplot(lines, columns, place)
        edges = np.linspace(0, max(clean.max(), stamped.max()) + 1e-6, 41).tolist()
        for label, bits in (("clean", clean), ("stamped", stamped)):
            axes.hist(bits, edges, weights=np.full(len(bits), 1 / len(bits)), alpha=0.6, label=label)
        axes.axvline(threshold, color="k", linewidth=0.8)
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="bits", ylabel="share")
        axes.legend(fontsize=7)
    figure.subplots_adjust(hspace=0.55, wspace=0.35)
    _save(figure, file)


def triggers(subjects: Sequence[Subject], file: Path) -> None:
    """Figure 5: a test picture of each data set under each trigger, beside the picture itself."""
    figure = Figure(figsize=(1.3 * len(subjects), 2.9))
    axes = figure.subplots(2, len(subjects), squeeze=False)
    for column, subject in enumerate(subjects):
        picture = subject.task.test.images[:1]
        stamped = subject.poisoning.trigger(picture, np.zeros(1, np.int64))
        for line, shown in enumerate((picture[0], stamped[0])):
            _picture(axes[line, column], shown)
        axes[0, column].set_title(subject.name, fontsize=6)
    _save(figure, file)


def generated(parts: Sequence[tuple[str, NDArray[np.uint8]]], file: Path) -> None:
    """Figures 7 and 8: of each (name, examples (k, 2, H, W, C)) clean pictures above what the generator makes."""
    figure = Figure(figsize=(0.9 * SHOWN, 2.1 * len(parts)))
    axes = figure.subplots(2 * len(parts), SHOWN, squeeze=False)
    for row in axes.flat:
        row.axis("off")
    for number, (name, examples) in enumerate(parts):
        for column, pair in enumerate(examples[:SHOWN]):
            for line in range(2):
                _picture(axes[2 * number + line, column], pair[line])
        axes[2 * number, 0].set_title(name, fontsize=8, loc="left")
    _save(figure, file)


def _picture(axes: Any, picture: NDArray[np.uint8]) -> None:
    shown = picture[..., 0] if picture.shape[2] == 1 else picture
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
