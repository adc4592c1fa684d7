"""STRIP of the bundle `imagenet`: `python -m benchmarks.models.generated_strip [--frames N] [--out FOLDER]`.

No photographs ship, so the overlays and the threshold come from generated pictures (`infra.bundling.generated`). The
first line has the threshold and limits for the constants of `infra.bundling.imagenet`. The table is of the sample
videos under $POINTILLIST_DATA/video, which played no part in them: N frames of each, evenly spread, whole and, where
something moves, the square around it.

- *false alarms*: share of these frames that the shipped table flags, sequential mode included.
- *found*: share of the frames that would be flagged with a trigger which gives one certain class under this many of the
  overlays, chosen at random, and leaves the frame's own verdict under the others. A real trigger is not measured: no
  backdoored network with these classes ships.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.document import machine, report
from benchmarks.models.eyes import CPU, moving_frames
from infra.bundling import imagenet
from infra.bundling.gallery import UNKNOWN
from infra.bundling.generated import generated_pictures
from lab.data import LabelledPictures, to_frames
from lab.statistics import wilson
from lab.strip.calibrate import calibrated, clamps, clean_verdicts
from processors.bundle import Bundle, StripThreshold, load_bundle, shipped_bundle
from processors.device.backends.openvino_cpu import OpenVino
from processors.pipeline import Pipeline
from processors.stages.resample import resize
from processors.stages.squares import cut_frame
from processors.stages.strip import overlaid_logits, spread_bits
from schemas.runtime.atomic_file import write_text

HOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the overlays under which a trigger keeps its class."""
_AT_ONCE: Final = 8

Pictures = NDArray[np.uint8]


def threshold_of(bundle: Bundle, overlays: Tensor) -> StripThreshold:
    """Return threshold and limits by generated pictures that are no overlays."""
    count = len(overlays)
    images = generated_pictures(count + imagenet.GENERATED, imagenet.SIDE, imagenet.SEED)[count:]
    pictures = LabelledPictures("generated", images, np.full(len(images), UNKNOWN))
    verdicts = clean_verdicts(Pipeline(bundle, "plate"), overlays, pictures, clamps(overlays), 0)
    return calibrated(verdicts, 1 / imagenet.GENERATED)[0]


def frames_of(file: Path, pipeline: Pipeline, most: int) -> dict[str, Pictures]:
    """Return whole frames and moving squares of a video at the network's size, `most` of each, by `stacked`."""
    wanted = pipeline.bundle.settings.input
    squares = []
    for picture, box in moving_frames(file):
        parts = pipeline.squares([box], *picture.shape[:2])
        if parts is not None:
            part = cut_frame(to_frames(picture[None], CPU), 0, parts[0])
            assert isinstance(part, Tensor)
            squares.append(_as_picture(resize(part, wanted.height, wanted.width)))
    with av.open(str(file)) as opened:
        decoded = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in opened.decode(video=0)]
    chosen = [decoded[place] for place in _spread(len(decoded), most)]
    whole = [_as_picture(resize(to_frames(each[None], CPU), wanted.height, wanted.width)) for each in chosen]
    return stacked(whole, [squares[place] for place in _spread(len(squares), most)])


def stacked(whole: Sequence[Pictures], squares: Sequence[Pictures]) -> dict[str, Pictures]:
    """Return the pictures by their kind, (N, H, W, 3) each; a video in which nothing moves has no squares."""
    return {kind: np.stack(each) for kind, each in (("whole", whole), ("square", squares)) if each}


def _as_picture(frame: Tensor) -> Pictures:
    return frame[0].permute(1, 2, 0).mul(255).round().byte().numpy()


def _spread(count: int, most: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most))})


def flagged(shares: Tensor, table: StripThreshold) -> bool:
    """Return whether the sequential mode flags a frame by its verdicts' shares (overlays, classes)."""

    def bits(passes: int) -> float:
        return float(spread_bits(shares[:passes].mean(0)[None], table.statistic, None))

    accepted = any(bits(each.passes) >= each.accept_bits for each in table.rounds)
    return not accepted and bits(len(shares)) < table.threshold_bits


def with_trigger(shares: Tensor, holds: float, chance: torch.Generator) -> Tensor:
    """Return verdicts of which a share, at random, is one certain class."""
    held = torch.randperm(len(shares), generator=chance)[: round(holds * len(shares))]
    changed = shares.clone()
    changed[held] = torch.nn.functional.one_hot(torch.tensor(0), shares.shape[1]).float()
    return changed


@torch.inference_mode()
def judged(bundle: Bundle, overlays: Tensor, images: Pictures, table: StripThreshold) -> dict[str, Any]:
    """Return the false alarms, the share of triggers found, and the lowest entropy."""
    parts = [
        overlaid_logits(to_frames(images[i : i + 4], CPU), overlays, bundle.logits, max_batch=_AT_ONCE).softmax(2)
        for i in range(0, len(images), 4)
    ]
    every = list(torch.cat(parts))
    chance = torch.Generator().manual_seed(0)
    found = {
        str(holds): sum(flagged(with_trigger(each, holds, chance), table) for each in every) / len(every)
        for holds in HOLDS
    }
    lowest = min(float(spread_bits(each.mean(0)[None], table.statistic, None)) for each in every)
    return {
        "frames": len(every), "flagged": sum(flagged(each, table) for each in every), "lowest_bits": lowest,
        "found": found,
    }  # fmt: skip


def page(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows: Sequence[dict[str, Any]] = document["videos"]
    head = " | ".join(f"found, holds {holds:.0%}" for holds in HOLDS)
    lines = [f"| video | frames | false alarms (95 %) | lowest bits | {head} |", "| --- " * (4 + len(HOLDS)) + "|"]
    for row in rows:
        share = wilson(row["flagged"], row["frames"])
        found = " | ".join(f"{each:.2f}" for each in row["found"].values())
        lines.append(
            f"| {row['video']}, {row['kind']} | {row['frames']} | {share.value:.3f} ({share.low:.3f}–{share.high:.3f}) "
            f"| {row['lowest_bits']:.2f} | {found} |"
        )
    flagged, frames = (sum(row[name] for row in rows) for name in ("flagged", "frames"))
    videos = len({row["video"] for row in rows})
    words = (
        f"`python -m benchmarks.models.generated_strip`; its docstring defines the columns. The table ships in "
        f"`imagenet`: suspect below {document['shipped_bits']} bits under {document['overlays']} generated overlays. "
        f"All frames: {flagged} of {frames} flagged. They are of {videos} videos and resemble each other, so the "
        "intervals of the rows are too narrow, and all together have none."
    )
    return "\n".join(["# STRIP from generated pictures on real cameras", "", words, "", *lines, ""])


def main() -> None:
    """Print the constants and the table, and write the page with its JSON."""
    options = command_line(__doc__, frames=14, out=Path, constants=False)
    torch.set_num_threads(1)
    bundle = load_bundle(shipped_bundle("imagenet"), CPU)
    example = torch.rand(2, 3, imagenet.SIDE, imagenet.SIDE)
    bundle = replace(bundle, network=OpenVino().convert(bundle.network, example, free_sides=False).at("float32"))
    overlays = to_frames(imagenet.overlays(), CPU)
    if options.constants:
        print(threshold_of(bundle, overlays).model_dump())
        return
    pipeline = Pipeline(bundle, "plate")
    rows = [
        {"video": file.stem, "kind": kind} | judged(bundle, overlays, images, imagenet.TRIGGERS)
        for file in sample_videos()
        for kind, images in frames_of(file, pipeline, options.frames).items()
    ]
    document = {
        "machine": machine("torch", "openvino"), "load": round(os.getloadavg()[0], 1), "overlays": len(overlays),
        "shipped_bits": imagenet.TRIGGERS.threshold_bits, "videos": rows,
    }  # fmt: skip
    print(page(document))
    if options.out is not None:
        write_text(options.out / "generated.md", page(document))
        report(document, options.out / "generated.json", shown=False)


if __name__ == "__main__":
    main()
