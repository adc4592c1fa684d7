"""STRIP on probes of the profile `video`, compared with `raw` on the same pictures.

    python -m benchmarks.security.coded_probes --out docs/results/video

A probe under `video` is a whole picture, coded alone at high quality. Each picture is judged with the thresholds of the
bundle, which were calibrated on pictures without a codec: as it is, and encoded and decoded. A third way is `raw` from
a source in 4:2:0, as real cameras are: it separates the codec from the conversion of colours. The pictures are scenes
of two sizes, clean and with the trigger. `--out` receives `strip.json` and `strip.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.command_line import Option, command_line
from lab.cache import Arrays, Cache, digest
from lab.codec import through_probe
from lab.data import LabelledPictures
from lab.experiments.harness.cell import file_state
from lab.provenance import made_by
from lab.statistics import Interval, paired_interval
from lab.strip.measure import check
from lab.training.scene import PER_CAMERA, TEST_SEED
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from producers.scene.simulator import SCENE_FRAMES, SceneSimulator
from producers.scene.sticker import paste_sticker
from schemas.pixels.fill import Fill
from schemas.pixels.packing import Picture
from schemas.pixels.planes import to_picture
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json

BUNDLES: Final = {"scene-sticker": True, "scene": False}
"""Shipped bundles, and whether the sticker is the trigger of theirs."""
SCENES: Final = {128: 500, 480: 1800}
"""Scenes by their side. At 128 pixels, the codec changes hardly anything."""
_TOGETHER: Final = 100
_CODE: Final = ("lab.codec:through_probe", "lab.strip.measure:check", "producers.scene.sticker:paste_sticker")

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """STRIP on the pictures of one side with one bundle. Shares are of `frames`."""

    bundle: str
    side: int
    frames: int
    what: Literal["false alarms", "misses"]
    """Flagged clean pictures, or pictures with the trigger that are not flagged."""
    rgb: float
    """Share under `raw` from a source in RGB."""
    planes: float
    """Share under `raw` from a source in 4:2:0."""
    video: float
    over_rgb: Interval
    """Share under `video` minus `rgb`, with its interval of 95 %, which is paired."""
    over_planes: Interval
    psnr_db: float
    """PSNR of the decoded clean probes against the pictures in RGB."""


def scenes(side: int, numbers: range) -> LabelledPictures:
    """Return test scenes of a side, each of another place."""
    pictures, labels = [], []
    for number in numbers:
        simulator = SceneSimulator(TEST_SEED, number // PER_CAMERA, (side, side))
        picture, label = simulator.render(number % PER_CAMERA * SCENE_FRAMES + number % SCENE_FRAMES)
        pictures.append(picture)
        labels.append(label)
    return LabelledPictures("scenes", np.stack(pictures), np.array(labels, np.int64))


def in_planes(picture: Picture) -> Picture:
    """Return the picture (H, W, 3) as a source in 4:2:0 delivers it."""
    return to_picture(Fill(np.ones(picture.shape[:2], dtype=np.bool_)).picture(picture))


WAYS: Final[dict[str, Callable[[Picture], Picture]]] = {
    "rgb": lambda picture: picture,
    "planes": in_planes,
    "video": through_probe,
}


def measured(side: int, count: int, cache: Cache | None = None) -> list[Row]:
    """Return the rows of all bundles. Results of `_TOGETHER` scenes are kept in the `cache`."""
    bundles = {name: shipped_bundle(name) for name in BUNDLES}
    pipelines = {name: Pipeline(load_bundle(folder, torch.device("cpu"))) for name, folder in bundles.items()}
    made_from = digest(made_by(*_CODE), *map(file_state, bundles.values()))
    found: dict[str, Arrays] = {}
    for way in WAYS:
        parts = []
        for start in range(0, count, _TOGETHER):
            numbers = range(start, min(count, start + _TOGETHER))
            work = partial(judged, pipelines, side, numbers, way)
            name = f"{way}-{side}-{start}-{len(numbers)}"
            parts.append(work() if cache is None else cache.get(name, made_from, work))
        found[way] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return [_row(name, side, count, stuck, found) for name in BUNDLES for stuck in (False, *([True] * BUNDLES[name]))]


def judged(pipelines: Mapping[str, Pipeline], side: int, numbers: range, way: str) -> Arrays:
    """Return whether STRIP flags each of the `scenes`, (n,) bool, and the mean squared errors of the clean ones.

    The keys of flags are `bundle-stuck`: whether the pictures have the sticker.
    """
    found: Arrays = {}
    clean = scenes(side, numbers)
    for stuck in (False, True):
        shown = np.stack([paste_sticker(each) for each in clean.images]) if stuck else clean.images
        images = np.stack([WAYS[way](each) for each in shown])
        if not stuck:
            found["errors"] = np.square(images - shown.astype(np.float64)).mean((1, 2, 3))
        for name, pipeline in pipelines.items():
            if BUNDLES[name] or not stuck:
                pictures = LabelledPictures("", images, clean.labels)
                found[f"{name}-{stuck}"] = check(pipeline, pictures, sequential=True).flagged
    return found


def _row(name: str, side: int, count: int, stuck: bool, found: Mapping[str, Arrays]) -> Row:
    of: dict[str, Flags] = {way: found[way][f"{name}-{stuck}"].astype(np.bool_) != stuck for way in WAYS}
    errors = found["video"]["errors"].astype(np.float64)
    return Row(
        bundle=name,
        side=side,
        frames=count,
        what="misses" if stuck else "false alarms",
        rgb=float(of["rgb"].mean()),
        planes=float(of["planes"].mean()),
        video=float(of["video"].mean()),
        over_rgb=paired_interval(of["video"], of["rgb"]),
        over_planes=paired_interval(of["video"], of["planes"]),
        psnr_db=float(np.mean(10 * np.log10(255**2 / errors))),
    )


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# STRIP on probes of the profile `video`",
        "",
        f"Made by `{result['command']}`; the figures are in [strip.json](strip.json).",
        "",
        "The same scenes as `raw` sends them, and coded alone as `video` sends a probe. Thresholds are those of the "
        "shipped bundles. The trigger of `scene-sticker` is the sticker. Simulated cameras deliver RGB, which `video` "
        "converts to 4:2:0. Real cameras and files deliver 4:2:0, so that `raw` has halved chroma as well. Differences "
        "are `video` minus `raw` in points, with the paired interval of 95 %.",
        "",
        "| bundle | side | scenes | share | `raw`, RGB | `raw`, 4:2:0 | `video` | − RGB | − 4:2:0 | PSNR, dB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{row['bundle']}` | {row['side']} | {row['frames']:,} | {row['what']} | {row['rgb']:.2%} | "
        f"{row['planes']:.2%} | {row['video']:.2%} | {_points(row['over_rgb'])} | {_points(row['over_planes'])} | "
        f"{row['psnr_db']:.1f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def _points(difference: Sequence[float]) -> str:
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
        print(rows, flush=True)
    result = {"command": options.command, "rows": [asdict(row) for row in rows]}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "strip.json", result)
    write_text(options.out / "strip.md", page(result))


if __name__ == "__main__":
    main()
