"""STRIP on probes of the profile `video`, compared with `raw` on the same pictures.

    python -m benchmarks.security.coded_probes --out docs/results/video

A probe under `video` is a whole picture, coded alone at high quality. Each picture is judged twice with the thresholds
of the bundle, which were calibrated on pictures without a codec: as it is, and encoded and decoded. The pictures are
scenes of `--sides`, clean and with the trigger. `--out` receives `strip.json` and `strip.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bytes.video import Decoder
from benchmarks.harness.command_line import Option, command_line
from infra.local.files import write_json, write_text
from lab.data import LabelledPictures
from lab.strip.measure import check
from lab.training.scene import PER_CAMERA, TEST_SEED
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from producers.scene.simulator import SCENE_FRAMES, SceneSimulator
from producers.scene.sticker import paste_sticker
from producers.video.encoder import encode_alone
from schemas.messages.access_unit import Codec
from schemas.pixels.fill import Fill
from schemas.pixels.packing import Picture

BUNDLES: Final = {"scene-sticker": True, "scene": False}
"""Shipped bundles, and whether the sticker is the trigger of theirs."""
SIDES: Final = (128, 480)
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
    judged_otherwise: int
    """Pictures, clean or with the sticker, that the codec moved across the threshold."""
    psnr_db: float
    """PSNR of the decoded clean probes."""


class ProbeCodec:
    """The way of a probe from a camera to the classifier."""

    def __init__(self, side: int) -> None:
        self._whole = Fill(np.ones((side, side), dtype=np.bool_))
        self._decoder = Decoder(side, side)

    def __call__(self, picture: Picture) -> Picture:
        """Return a picture (H, W, 3) after encoding and decoding."""
        planes = self._whole.picture(picture)
        return self._decoder.picture(Codec.H264, encode_alone(planes), planes, first=True)


def scenes(side: int, count: int) -> Iterator[LabelledPictures]:
    """Yield the first `count` test scenes of a side, each of another place, in batches."""
    for start in range(0, count, _TOGETHER):
        pictures, labels = [], []
        for number in range(start, min(count, start + _TOGETHER)):
            simulator = SceneSimulator(TEST_SEED, number // PER_CAMERA, (side, side))
            picture, label = simulator.render(number % PER_CAMERA * SCENE_FRAMES + number % SCENE_FRAMES)
            pictures.append(picture)
            labels.append(label)
        yield LabelledPictures("scenes", np.stack(pictures), np.array(labels, np.int64))


def measured(side: int, count: int) -> list[Row]:
    """Return a row for each bundle."""
    pipelines = {name: Pipeline(load_bundle(shipped_bundle(name), torch.device("cpu"))) for name in BUNDLES}
    codec = ProbeCodec(side)
    flags: dict[tuple[str, bool, bool], list[Flags]] = {}
    """By bundle, whether the pictures have the sticker, and whether they were coded."""
    errors: list[float] = []
    for clean in scenes(side, count):
        for stuck in (False, True):
            shown = np.stack([paste_sticker(each) for each in clean.images]) if stuck else clean.images
            decoded = np.stack([codec(each) for each in shown])
            if not stuck:
                errors += [
                    float(np.square(a - b.astype(np.float64)).mean()) for a, b in zip(decoded, shown, strict=True)
                ]
            for coded, images in ((False, shown), (True, decoded)):
                for name, pipeline in pipelines.items():
                    if BUNDLES[name] or not stuck:
                        found = check(pipeline, LabelledPictures("", images, clean.labels), sequential=True)
                        flags.setdefault((name, stuck, coded), []).append(found.flagged)
    return [_row(name, side, count, flags, errors) for name in BUNDLES]


def _row(
    name: str, side: int, count: int, flags: dict[tuple[str, bool, bool], list[Flags]], errors: list[float]
) -> Row:
    of = {key[1:]: np.concatenate(parts) for key, parts in flags.items() if key[0] == name}
    stuck = BUNDLES[name]
    return Row(
        name, side, count, float(of[False, False].mean()), float(of[False, True].mean()),
        1 - float(of[True, False].mean()) if stuck else None, 1 - float(of[True, True].mean()) if stuck else None,
        sum(int((of[each, False] != of[each, True]).sum()) for each in (False, *([True] * stuck))),
        float(np.mean(10 * np.log10(255**2 / np.array(errors)))),
    )  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# STRIP on probes of the profile `video`",
        "",
        f"Made by `{result['command']}`; the figures are in [strip.json](strip.json).",
        "",
        "The same scenes as `raw` sends them, and coded alone as `video` sends a probe. Thresholds are those of the "
        "shipped bundles. The trigger of `scene-sticker` is the sticker.",
        "",
        "| bundle | side | scenes | false alarms, `raw` | `video` | misses, `raw` | `video` | judged otherwise | "
        "PSNR, dB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in (Row(**each) for each in result["rows"]):
        shares = (row.false_alarms_raw, row.false_alarms_video, row.misses_raw, row.misses_video)
        shown = " | ".join("–" if share is None else f"{share:.2%}" for share in shares)
        lines.append(
            f"| `{row.bundle}` | {row.side} | {row.frames:,} | {shown} | {row.judged_otherwise} | {row.psnr_db:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write table and page."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for table and page", required=True),
        scenes=Option(3000, "scenes of each side, clean and with the sticker"),
    )
    torch.set_num_threads(1)
    rows: list[Row] = []
    for side in SIDES:
        rows += measured(side, options.scenes)
        print(rows[-len(BUNDLES) :], flush=True)
    command = f"python -m benchmarks.security.coded_probes --out docs/results/video --scenes {options.scenes}"
    result = {"command": command, "rows": [asdict(row) for row in rows]}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "strip.json", result)
    write_text(options.out / "strip.md", page(result))


if __name__ == "__main__":
    main()
