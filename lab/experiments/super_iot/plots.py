"""The plots: the paper's Figures 3 to 6 with our reconstruction next to Algorithm 1, and bytes against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.data import to_frames, to_images
from lab.experiments.super_iot.algorithm import Iteration
from lab.experiments.super_iot.rows import Row, SizeRow
from lab.masks import random_masks
from lab.restoration.psnr import psnr_db
from processors.stages.drop import drop
from processors.stages.modes import Mode
from processors.stages.reconstruct import reconstruct

SHOWN_RATIOS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
CURVES: Final = (
    ("clean", False, "clean"),
    ("fgsm", True, "FGSM .005"),
    ("ifgsm", True, "I-FGSM .005"),
    ("pgd", True, "PGD .01"),
    ("cw", True, "C&W"),
)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without date and version in the metadata, equal figures give equal files.
    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})


@torch.inference_mode()
def pictures_by_ratio(image: NDArray[np.uint8], seed: int, file: Path) -> None:
    """Plot Figure 3: a picture (H, W, C) at rising drop ratios, and rebuilt by both modes, with their PSNR."""
    clean = to_frames(image[None], torch.device("cpu"))
    figure = Figure(figsize=(1.6 * len(SHOWN_RATIOS), 5.2))
    axes = figure.subplots(3, len(SHOWN_RATIOS), squeeze=False)
    height, width = image.shape[:2]
    for column, ratio in enumerate(SHOWN_RATIOS):
        kept = random_masks(1, height, width, ratio, torch.Generator().manual_seed(seed))
        frames = drop(clean, kept)
        _picture(axes[0, column], frames, f"r = {ratio:g}")
        modes: tuple[Mode, ...] = ("paper", "default")
        for line, mode in enumerate(modes, start=1):
            filled = reconstruct(frames, kept, mode)
            _picture(axes[line, column], filled, f"{float(psnr_db(filled, clean)):.1f} dB")
    for line, name in enumerate(("dropped", "Algorithm 1", "default")):
        axes[line, 0].set_ylabel(name)
    _save(figure, file)


def _picture(axes: Any, frames: torch.Tensor, title: str) -> None:
    picture = to_images(frames)[0]
    axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def descent(rounds: Sequence[Iteration], file: Path) -> None:
    """Plot Figure 4: Algorithm 1 round by round: (MSE, PSNR) and (Δ, μ)."""
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2)
    number = range(1, len(rounds) + 1)
    left.semilogy(number, [max(r.mse, 1e-9) for r in rounds], label="MSE of the change")
    left.set(xlabel="iteration", ylabel="MSE")
    beside = left.twinx()
    beside.plot(number, [-10 * np.log10(r.error) for r in rounds], "C1", label="PSNR")
    beside.set_ylabel("PSNR in dB")
    left.legend(loc="upper center")
    beside.legend(loc="center right")
    right.semilogy(number, [r.distortion for r in rounds], label="Δ, mean over blocks")
    right.semilogy(number, [r.step for r in rounds], label="μ, mean over blocks")
    right.set_xlabel("iteration")
    right.legend()
    figure.subplots_adjust(wspace=0.45)
    _save(figure, file)


def step_sizes(values: Sequence[float], psnr: NDArray[np.float64], file: Path) -> None:
    """Plot Figure 5: PSNR (Δ, μ) of Algorithm 1 over a grid of both."""
    figure = Figure(figsize=(5.4, 4.4))
    axes = figure.subplots()
    shown = axes.imshow(psnr, origin="lower", cmap="viridis")
    names = [f"{value:g}" for value in values]
    axes.set_xticks(range(len(values)), names)
    axes.set_yticks(range(len(values)), names)
    axes.set(xlabel="μ", ylabel="Δ")
    for (row, column), value in np.ndenumerate(psnr):
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white", fontsize=7)
    figure.colorbar(shown, label="PSNR in dB")
    _save(figure, file)


def accuracy_by_ratio(rows: Sequence[Row], file: Path) -> None:
    """Plot Figure 6: accuracy of both modes against the drop ratio, over bars of the share of unsent pixels."""
    figure = Figure(figsize=(11, 3.8))
    for place, mode in enumerate(("default", "paper"), start=1):
        axes = figure.add_subplot(1, 2, place)
        ratios = sorted({row.r for row in rows if row.defence == mode and row.r is not None})
        axes.bar(ratios, ratios, width=0.018, color="0.85", label="share not sent")
        for attack, targeted, label in CURVES:
            chosen = sorted(
                (row.r, row.accuracy, row.ci_low, row.ci_high)
                for row in rows
                if (row.defence, row.attack, row.targeted, row.rounded) == (mode, attack, targeted, True)
                and row.r is not None
            )
            if chosen:
                r, accuracy, low, high = (np.array(column) for column in zip(*chosen, strict=True))
                (line,) = axes.plot(r, accuracy, marker=".", label=label)
                axes.fill_between(r, low, high, color=line.get_color(), alpha=0.2)
        axes.set(xlabel="drop ratio r", ylabel="relative accuracy", ylim=(0, 1.02), title=f"{mode} mode, targeted")
        axes.legend(fontsize=7, loc="lower left")
    _save(figure, file)


def bytes_against_accuracy(rows: Sequence[SizeRow], file: Path) -> None:
    """Plot accuracy over mean bytes per frame, one curve for each encoding."""
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for encoding in dict.fromkeys(row.encoding for row in rows):
        chosen = sorted(
            (row.bytes, row.accuracy) for row in rows if row.encoding == encoding and row.accuracy is not None
        )
        if chosen:
            sizes, accuracy = zip(*chosen, strict=True)
            axes.plot(sizes, accuracy, marker=".", label=encoding)
    axes.set_xscale("log")
    axes.set(xlabel="bytes a frame", ylabel="accuracy of all pictures, clean")
    axes.legend(fontsize=8)
    _save(figure, file)
