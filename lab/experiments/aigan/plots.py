"""Figures 3 and 4 of the paper: attacked pictures with their changes, and the predicted classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.aigan.shipping import Attacker, Frames, GeneratorSettings


def save(figure: Figure, file: Path) -> None:
    """Write a plot. Equal data give equal files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def confusion(
    settings: GeneratorSettings, verdicts: NDArray[np.generic], targets: NDArray[np.int64], file: Path
) -> None:
    """Plot the predicted class of the pictures (N,) in columns against the requested class in rows."""
    count = len(settings.classes)
    table = np.zeros((count, count))
    np.add.at(table, (targets, verdicts.astype(np.int64)), 1)
    table /= table.sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(count), settings.classes, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(count), settings.classes, fontsize=7)
    axes.set_xlabel("taken for")
    axes.set_ylabel("asked for")
    axes.set_title(f"{settings.name}: {settings.knowledge}, ε = {settings.eps:.4f}", fontsize=9)
    figure.colorbar(image, shrink=0.8)
    save(figure, file)


def pictures(attacker: Attacker, frames: Frames, labels: NDArray[np.int64], file: Path) -> None:
    """Plot one picture of each class (columns) attacked towards each class (rows), next to the amplified change."""
    count = len(attacker.settings.classes)
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(count) if (labels == label).any()]
    channels, height, width = frames.shape[1:]
    attacked = np.zeros((count * height, len(firsts) * width, channels))
    changes = np.full_like(attacked, 0.5)
    for row in range(count):
        made = attacker(frames[firsts], np.full(len(firsts), row, np.int64))
        change = 0.5 + (made - frames[firsts]) / (2 * attacker.settings.eps)
        for column, index in enumerate(firsts):
            place = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            own = labels[index] == row  # the picture itself, on the diagonal
            attacked[place] = (frames[index] if own else made[column]).transpose(1, 2, 0)
            changes[place] = 0.5 if own else change[column].transpose(1, 2, 0)
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, shown, title in zip(
        figure.subplots(1, 2),
        (attacked, changes),
        ("attacked; the diagonal is clean", "the change, amplified"),
        strict=True,
    ):
        axes.imshow(shown.clip(0, 1).squeeze(), cmap="grey" if channels == 1 else None, vmin=0, vmax=1)
        axes.set_axis_off()
        axes.set_title(title, fontsize=9)
    figure.suptitle(f"{attacker.settings.name}: rows are the classes asked for", fontsize=9)
    save(figure, file)
