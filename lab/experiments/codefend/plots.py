"""The experiment's pictures: entropies (Figure 6), triggers (5), and generated frames of a repair (7, 8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.experiments.codefend.subjects import Subject

SHOWN = 8
ENTROPIES, GENERATED, TRIGGERS = "entropies", "generated", "triggers"
"""The folders of the pictures."""


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without date and version in the metadata, equal figures give equal files.
    figure.savefig(file, dpi=90, bbox_inches="tight", metadata={"Software": None})


def entropies(
    model: str, clean: NDArray[np.float64], stamped: NDArray[np.float64], threshold: float, folder: Path
) -> None:
    """Plot Figure 6: a histogram of the entropies in bits of clean and stamped pictures."""
    figure = Figure(figsize=(4.2, 2.4))
    axes = figure.add_subplot()
    edges = np.linspace(0, max(clean.max(), stamped.max()) + 1e-6, 41).tolist()
    for label, bits in (("clean", clean), ("stamped", stamped)):
        axes.hist(bits, edges, weights=np.full(len(bits), 1 / len(bits)), alpha=0.6, label=label)
    axes.axvline(threshold, color="k", linewidth=0.8)
    axes.set_title(model, fontsize=9)
    axes.set(xlabel="bits", ylabel="share")
    axes.legend(fontsize=7)
    _save(figure, folder / ENTROPIES / f"{file_name([model])}.png")


def trigger(subject: Subject, folder: Path) -> None:
    """Plot Figure 5: a test picture without and with the trigger."""
    figure = Figure(figsize=(2.6, 1.4))
    picture = subject.task.test.images[:1]
    stamped = subject.poisoning.trigger(picture, np.zeros(1, np.int64))
    for axes, shown in zip(figure.subplots(1, 2), (picture[0], stamped[0]), strict=True):
        _picture(axes, shown)
    figure.suptitle(subject.name, fontsize=8)
    _save(figure, folder / TRIGGERS / f"{file_name([subject.name])}.png")


def generated(key: Sequence[object], examples: NDArray[np.uint8], folder: Path) -> None:
    """Plot Figures 7 and 8: the clean pictures of examples (k, 2, H, W, C) above the generator's versions."""
    figure = Figure(figsize=(0.9 * SHOWN, 2.1))
    lines = figure.subplots(2, SHOWN, squeeze=False)
    for axes in lines.flat:
        axes.axis("off")
    for column, pair in enumerate(examples[:SHOWN]):
        for line in range(2):
            _picture(lines[line, column], pair[line])
    lines[0, 0].set_title(", ".join(map(str, key)), fontsize=8, loc="left")
    _save(figure, folder / GENERATED / f"{file_name(key)}.png")


def file_name(key: Sequence[object]) -> str:
    """Return the file name of a row's picture."""
    return "-".join(map(str, key)).replace(" %", "").replace(" ", "-")


def _picture(axes: Any, picture: NDArray[np.uint8]) -> None:
    shown = picture[..., 0] if picture.shape[2] == 1 else picture
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
