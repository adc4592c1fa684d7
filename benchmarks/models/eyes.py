"""Verdicts of the bundle `imagenet` on the sample videos: `python -m benchmarks.models.eyes --json FILE`.

Each video under $POINTILLIST_DATA/video is read at two frames a second, as a camera of `up` does. A frame counts if
something moves in it, by the camera's motion gate. A quarter of its pixels is dropped, and the processor's chain
classifies it under the policies `motion` and `resize`. The right group is `vehicle` on the road, `clothing` in the
corridor and `bottle` on the table, also in a frame whose square happens to be empty.

The first half of each video calibrates temperature and limit of `unsure` (`infra.bundling.certainty`): with the right
groups, all videos together. These are the constants of `infra.bundling.imagenet`. The table is of the second halves.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.document import machine, report
from benchmarks.harness.general import general_bundle
from benchmarks.harness.videos import sampled_pictures
from infra.bundling.certainty import Certainty, by_labels
from lab.data import to_frames
from lab.results.markdown import markdown
from processors.bundle import Bundle, load_bundle
from processors.pipeline import Pipeline
from processors.stages.resample import resize
from processors.stages.squares import cut_frame
from producers.gate.motion import MotionGate, MotionSettings
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.messages.moving import Box, pack_moving, unpack_moving
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture
from schemas.runtime.atomic_file import write_text

KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/eyes"))
RIGHT: Final = {"bottle": "bottle", "car": "vehicle", "person": "clothing"}
"""The right group of a video, by a word of its name."""
FPS: Final = 2.0
DROP: Final = 0.25
ALL: Final = "all frames"
MEAN: Final = "mean of the videos"
CPU: Final = torch.device("cpu")


class Row(NamedTuple):
    """The second half of one video, or of all, under one policy."""

    video: str
    frames: int
    moving: int
    policy: str
    right: float
    right_or_unsure: float
    common: str


class Seen(NamedTuple):
    """The moving frames of one video: their logits (N, classes) by policy, and pictures (N, height, width, 3) uint8."""

    video: str
    group: str
    frames: int
    logits: dict[str, Tensor]
    pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def moving_frames(file: Path) -> Iterator[tuple[Picture, Box | None]]:
    """Yield pictures (H, W, 3) of a video at `FPS`, with the box of what moves as the camera sends it."""
    gate = MotionGate(MotionSettings())
    for time_s, picture in sampled_pictures(file, FPS):
        gate.passes(picture, round(1000 * time_s))
        size = picture.shape[:2]
        yield picture, unpack_moving(pack_moving(gate.box, *size), *size)


@torch.inference_mode()
def seen(file: Path, pipeline: Pipeline, ratio: float) -> Seen:
    """Classify the moving frames of a video. Raises SystemExit if its name has no right group."""
    group = group_of(file)
    bundle, shown = pipeline.bundle, pipeline.bundle.settings.input
    logits: dict[str, list[Tensor]] = {"motion": [], "resize": []}
    pictures, frames = [], 0
    for seq, (picture, box) in enumerate(moving_frames(file)):
        frames += 1
        if box is None:
            continue
        height, width = picture.shape[:2]
        kept = torch.from_numpy(kept_mask(KEY, 1, seq, height, width, dropped_per_block(ratio)))[None, None]
        whole = to_frames(picture[None], CPU)
        squares = pipeline.squares([box], height, width)
        for policy, cut in (("motion", squares), ("resize", None)):
            inputs, _ = pipeline.network_input(whole * kept, kept, squares=cut)
            logits[policy].append(bundle.network_logits(inputs))
        part = cut_frame(whole, 0, None if squares is None else squares[0])
        assert isinstance(part, Tensor)
        probe = resize(part, shown.height, shown.width)[0].permute(1, 2, 0).mul(255).round().byte()
        pictures.append(probe.numpy())
    return Seen(file.stem, group, frames, {name: torch.cat(each) for name, each in logits.items()}, np.stack(pictures))


def group_of(file: Path) -> str:
    """Return the right group of a video. Raises SystemExit if its name has none."""
    for word, group in RIGHT.items():
        if word in file.stem:
            return group
    raise SystemExit(f"{file}: expected a name with {', '.join(RIGHT)}, got none of them. Move the file elsewhere.")


def half(each: Seen, policy: str, *, last: bool) -> Tensor:
    """Return the logits of the first or of the last half of the frames."""
    logits = each.logits[policy]
    middle = len(logits) // 2
    return logits[middle:] if last else logits[:middle]


def fitted(bundle: Bundle, videos: list[Seen]) -> Certainty:
    """Calibrate on the first halves under the policy `motion`."""
    groups = list(bundle.settings.groups)
    assert bundle.groups is not None
    logits = [half(each, "motion", last=False) for each in videos]
    right = [
        bundle.groups[:, groups.index(each.group)].bool().expand(len(part), -1)
        for each, part in zip(videos, logits, strict=True)
    ]
    return by_labels(torch.cat(logits), torch.cat(right), bundle.groups)


def judged(bundle: Bundle, logits: Tensor, group: str, by: Certainty) -> tuple[float, float, list[str]]:
    """Return the shares of verdicts that are right, and right or unsure; and the three most frequent classes."""
    shares = (logits / by.temperature).softmax(1)
    assert bundle.groups is not None
    confidence, best = (shares @ bundle.groups).max(1)
    named = (confidence >= by.unsure_below) | (shares.amax(1) >= by.unsure_below)
    right = (best == list(bundle.settings.groups).index(group)) & (confidence >= by.unsure_below)
    common = Counter(bundle.settings.classes[i] for i in shares.argmax(1).tolist()).most_common(3)
    return float(right.float().mean()), float((right | ~named).float().mean()), [name for name, _ in common]


def rows_of(bundle: Bundle, videos: Sequence[Seen], by: Certainty) -> list[Row]:
    """Return the rows of the second halves: each video, all frames, and the mean of the videos."""
    rows: list[Row] = []
    for policy in ("motion", "resize"):
        means, counts = [], []
        for each in videos:
            logits = half(each, policy, last=True)
            right, not_wrong, common = judged(bundle, logits, each.group, by)
            means.append((right, not_wrong))
            counts.append(len(logits))
            rows.append(Row(each.video, each.frames, len(logits), policy, right, not_wrong, ", ".join(common)))
        for name, weights in ((ALL, counts), (MEAN, [1] * len(videos))):
            right, not_wrong = np.average(means, axis=0, weights=weights).tolist()
            rows.append(Row(name, sum(each.frames for each in videos), sum(counts), policy, right, not_wrong, ""))
    return rows


def page(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    by, stated = document["calibrated"], document["stated"]
    return "\n\n".join(
        [
            "# Verdicts of the general network on the sample videos",
            f"Made by `{document['command']}`, with a share of {document['drop']:g} of the pixels dropped. "
            f"Calibrated on the first halves: temperature {by['temperature']:.2f}, unsure below "
            f"{by['unsure_below']:.2f}. The bundle has {stated['temperature']:.2f} and {stated['unsure_below']:.2f}.",
            markdown(
                ["video", "frames", "moving, second half", "policy", "group right", "right or unsure", "most often"],
                (
                    [
                        row["video"], str(row["frames"]), str(row["moving"]), row["policy"], f"{row['right']:.2f}",
                        f"{row['right_or_unsure']:.2f}", row["common"],
                    ]
                    for row in document["rows"]
                ),
            ),
        ]
    ) + "\n"  # fmt: skip


def main() -> None:
    """Measure, print the page, and write it next to the JSON."""
    options = command_line(__doc__, drop=DROP, threads=1, json=Path)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        bundle = load_bundle(general_bundle(Path(temporary)), CPU)
        videos = [seen(file, Pipeline(bundle), options.drop) for file in sample_videos()]
        by, stated = fitted(bundle, videos), bundle.settings
        rows = rows_of(bundle, videos, by)
    summary = {
        row.policy: {
            each.video.replace(" ", "_"): each._asdict()
            for each in rows
            if each.policy == row.policy and each.video in (ALL, MEAN)
        }
        for row in rows
    }
    document = {
        "command": options.command,
        "drop": options.drop,
        "calibrated": {"temperature": by.temperature, "unsure_below": by.unsure_below},
        "stated": {"temperature": stated.temperature, "unsure_below": stated.unsure_below},
        "rows": [row._asdict() for row in rows],
        "summary": summary,
        "machine": machine("torch", "numpy", "av"),
    }
    print(page(document), end="")
    report(document, options.json, shown=False)
    if options.json is not None:
        write_text(options.json.with_suffix(".md"), page(document))


if __name__ == "__main__":
    main()
