"""The `report.md` of a repair: the recovered trigger, the figures, and example pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lab.data import to_images
from lab.repair.run import RepairResult
from lab.repair.tuning import FALLBACK

ZOOM_TO: Final = 96
"""Fewest pixels of a picture's shorter side, reached by enlarging without smoothing."""
GAP: Final = 4
PICTURES: Final = ".pictures"
"""Folder of the pictures next to the report. It is hidden: frames of cameras are not published with the bundle."""

CAPTIONS: Final = {
    "clean": "Clean frames held out",
    "stamped": "The same with the recovered trigger on",
    "opacity": "Where the trigger covers them",
    "quarantined": "Quarantined frames",
    "cleansed": "The same with the trigger off",
}


def write_report(out: Path, result: RepairResult, classes: list[str], verdict: str, strip_line: str | None) -> None:
    """Write `report.md` and its pictures into `out`. `verdict` states whether the repaired network is published."""
    shutil.rmtree(out / PICTURES, ignore_errors=True)
    (out / PICTURES).mkdir()
    for name, frames in _pictures(result).items():
        Image.fromarray(_strip_of(frames)).save(out / PICTURES / f"{name}.png")
    figures = result.figures
    lines = [
        f"# Repair of {result.cured.model_id}",
        "",
        f"{verdict}",
        "",
        *_way(result, classes),
        f"- {result.held_out.describe()}",
        f"- {result.chosen.count} others chose how far the weights go from the sick ones to the unlearned ones: "
        f"{100 * result.way:.0f} % of the way, {100 * result.chosen.lost:.1f} points of them lost",
    ]
    if strip_line is not None:
        lines.append(f"- {strip_line}")
    lines += [
        "",
        "## Triggers tried",
        "",
        "Share of clean frames of other classes that the sick model sends to the target with the trigger on, share of",
        "quarantined frames that leave the target with the trigger off, mean share of a pixel that it covers:",
        "",
        "| trigger | reach the target | leave the target | covers |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {e.arrives:.3f} | {e.leaves:.3f} | {e.covers:.4f} |" for name, e in result.tried.items()),
        "",
        "## Figures",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _rows(figures)),
        "",
        "## Pictures",
        "",
        *(
            line
            for name in _pictures(result)
            for line in (f"{CAPTIONS[name]}:", "", f"![{name}]({PICTURES}/{name}.png)", "")
        ),
    ]
    (out / "report.md").write_text("\n".join(lines), encoding="utf-8")


def _way(result: RepairResult, classes: list[str]) -> list[str]:
    """Return the lines on the target, the trigger and the method."""
    figures = result.figures
    if result.target is None:
        lines = [f"- target class: not needed in the mode `{figures['mode']}`"]
    else:
        lines = [
            f"- target class: {result.target} ({classes[result.target]}), the verdict on {figures['learned_from']} of "
            f"{figures['quarantined']} quarantined frames; the others took no part"
        ]
    if result.trigger is not None:
        return [*lines, f"- trigger: {result.trigger.name}", "- method: unlearning of the trigger"]
    how = "fine-tuning on clean pictures alone" if figures["method"] == FALLBACK else (
        f"the network unlearns its labels of {figures['learned_from']} quarantined frames"
    )  # fmt: skip
    return [*lines, "- trigger: none explains the quarantine" if result.tried else "- trigger: not searched",
            f"- method: {figures['method']}, {how}"]  # fmt: skip


def _pictures(result: RepairResult) -> dict[str, Tensor]:
    """Return the pictures of the report by name, (n, C, H, W) each. Those of a trigger need one."""
    trigger = result.trigger
    if trigger is None:
        return {"clean": result.shown} | ({"quarantined": result.flagged} if len(result.flagged) else {})
    with torch.no_grad():
        marked, covered = trigger.put(result.shown, torch.Generator().manual_seed(4))
        return {
            "clean": result.shown, "stamped": marked, "opacity": covered.clamp(0, 1),
            "quarantined": result.flagged, "cleansed": trigger.remove(result.flagged),
        }  # fmt: skip


def _rows(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}, ")
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else "not evaluated" if value is None else str(value)
            rows.append((prefix + name.replace("_", " "), shown))
    return rows


def _strip_of(frames: Tensor) -> NDArray[np.uint8]:
    """Return frames (n, 1 or 3, H, W) in [0, 1] side by side as one picture (H', W', 3) uint8."""
    pictures = to_images(frames.expand(-1, 3, -1, -1))
    zoom = max(1, -(-ZOOM_TO // min(pictures.shape[1:3])))
    large = pictures.repeat(zoom, 1).repeat(zoom, 2)
    parts = [np.pad(picture, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for picture in large]
    strip: NDArray[np.uint8] = np.concatenate(parts, 1)[:, :-GAP]
    return strip
