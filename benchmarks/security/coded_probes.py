"""STRIP on probes of the profile `video`, compared with `raw` on the same pictures.

    python -m benchmarks.security.coded_probes --out docs/results/video

A probe under `video` is a whole picture, coded alone at high quality. Each picture is judged twice with the thresholds
of the bundle, which were calibrated on pictures without a codec: as it is, and encoded and decoded. The pictures are
scenes of two sizes, clean and with the trigger. Differences are paired: `video` minus `raw` on the same pictures.
`--out` receives `strip.json` and `strip.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.command_line import Option, command_line
from infra.local.files import write_json, write_text
from lab.codec import through_probe
from lab.data import LabelledPictures
from lab.experiments.cache import Arrays, Cache, digest, source_digest
from lab.experiments.harness.cell import file_state
from lab.statistics import Interval, paired_interval
from lab.strip.measure import check
from lab.training.scene import PER_CAMERA, TEST_SEED
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from producers.scene.simulator import SCENE_FRAMES, SceneSimulator
from producers.scene.sticker import paste_sticker

BUNDLES: Final = {"scene-sticker": True, "scene": False}
"""Shipped bundles, and whether the sticker is the trigger of theirs."""
SCENES: Final = {128: 500, 480: 3000}
"""Scenes by their side. At 128 pixels, the codec changes hardly anything."""
_TOGETHER: Final = 100

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """STRIP on the pictures of one side with one bundle. Shares are of `frames`."""

    bundle: str
    side: int
    frames: int
    false_alarms_raw: float
    false_alarms_video: float
    misses_raw: float | None
    """Missed pictures among those with the sticker; None for a bundle without a trigger."""
    misses_video: float | None
    false_alarms_more: Interval
    """Share under `video` minus share under `raw`, with its interval of 95 %, which is paired."""
    misses_more: Interval | None
    only_raw: int
    """Pictures, clean or with the sticker, that are flagged without the codec only."""
    only_video: int
    psnr_db: float
    """PSNR of the decoded clean probes."""


def scenes(side: int, numbers: range) -> LabelledPictures:
    """Return test scenes of a side, each of another place."""
    pictures, labels = [], []
    for number in numbers:
        simulator = SceneSimulator(TEST_SEED, number // PER_CAMERA, (side, side))
        picture, label = simulator.render(number % PER_CAMERA * SCENE_FRAMES + number % SCENE_FRAMES)
        pictures.append(picture)
        labels.append(label)
    return LabelledPictures("scenes", np.stack(pictures), np.array(labels, np.int64))


def measured(side: int, count: int, cache: Cache | None = None) -> list[Row]:
    """Return a row for each bundle. Results of `_TOGETHER` scenes are kept in the `cache`."""
    bundles = {name: shipped_bundle(name) for name in BUNDLES}
    pipelines = {name: Pipeline(load_bundle(folder, torch.device("cpu"))) for name, folder in bundles.items()}
    made_from = digest(source_digest(Path(__file__)), *map(file_state, bundles.values()))
    parts = []
    for start in range(0, count, _TOGETHER):
        numbers = range(start, min(count, start + _TOGETHER))
        work = partial(judged, pipelines, side, numbers)
        parts.append(work() if cache is None else cache.get(f"{side}-{start}-{len(numbers)}", made_from, work))
    of = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return [_row(name, side, count, of) for name in BUNDLES]


def judged(pipelines: Mapping[str, Pipeline], side: int, numbers: range) -> Arrays:
    """Return whether STRIP flags each of the `scenes`, (n,) bool, and the mean squared errors of the clean probes.

    The keys of flags are `bundle-stuck-coded`: whether the pictures have the sticker, and whether they were coded.
    """
    found: Arrays = {}
    clean = scenes(side, numbers)
    for stuck in (False, True):
        shown = np.stack([paste_sticker(each) for each in clean.images]) if stuck else clean.images
        decoded = np.stack([through_probe(each) for each in shown])
        if not stuck:
            found["errors"] = np.square(decoded - shown.astype(np.float64)).mean((1, 2, 3))
        for coded, images in ((False, shown), (True, decoded)):
            for name, pipeline in pipelines.items():
                if BUNDLES[name] or not stuck:
                    pictures = LabelledPictures("", images, clean.labels)
                    found[f"{name}-{stuck}-{coded}"] = check(pipeline, pictures, sequential=True).flagged
    return found


def _row(name: str, side: int, count: int, found: Arrays) -> Row:
    of: dict[tuple[bool, bool], Flags] = {
        (stuck, coded): found[f"{name}-{stuck}-{coded}"].astype(np.bool_)
        for stuck in (False, *([True] * BUNDLES[name]))
        for coded in (False, True)
    }
    stuck = BUNDLES[name]
    every = [(of[each, False], of[each, True]) for each in (False, *([True] * stuck))]
    return Row(
        name, side, count, float(of[False, False].mean()), float(of[False, True].mean()),
        1 - float(of[True, False].mean()) if stuck else None, 1 - float(of[True, True].mean()) if stuck else None,
        paired_interval(of[False, True], of[False, False]),
        paired_interval(~of[True, True], ~of[True, False]) if stuck else None,
        sum(int((raw & ~video).sum()) for raw, video in every), sum(int((video & ~raw).sum()) for raw, video in every),
        float(np.mean(10 * np.log10(255**2 / found["errors"].astype(np.float64)))),
    )  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# STRIP on probes of the profile `video`",
        "",
        f"Made by `{result['command']}`; the figures are in [strip.json](strip.json).",
        "",
        "The same scenes as `raw` sends them, and coded alone as `video` sends a probe. Thresholds are those of the "
        "shipped bundles. The trigger of `scene-sticker` is the sticker. Differences are `video` minus `raw` in "
        "points, with the paired interval of 95 %. The last columns count pictures, clean or with the sticker, that "
        "are flagged under one profile only.",
        "",
        "| bundle | side | scenes | false alarms, `raw` | `video` | difference | misses, `raw` | `video` | "
        "difference | flagged in `raw` only | in `video` only | PSNR, dB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        shown = " | ".join(
            f"{_percent(row[f'{what}_raw'])} | {_percent(row[f'{what}_video'])} | {_points(row[f'{what}_more'])}"
            for what in ("false_alarms", "misses")
        )
        lines.append(
            f"| `{row['bundle']}` | {row['side']} | {row['frames']:,} | {shown} | {row['only_raw']} | "
            f"{row['only_video']} | {row['psnr_db']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _points(difference: Sequence[float] | None) -> str:
    if difference is None:
        return "–"
    value, low, high = (100 * each for each in difference)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Measure, and write table and page."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for table and page", required=True),
        runs=Option(Path("runs"), "folder of the checkpoints: a killed run resumes from them"),
    )
    torch.set_num_threads(1)
    rows: list[Row] = []
    for side, count in SCENES.items():
        rows += measured(side, count, Cache(options.runs / "coded-probes"))
        print(rows[-len(BUNDLES) :], flush=True)
    command = "python -m benchmarks.security.coded_probes --out docs/results/video"
    result = {"command": command, "rows": [asdict(row) for row in rows]}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "strip.json", result)
    write_text(options.out / "strip.md", page(result))


if __name__ == "__main__":
    main()
