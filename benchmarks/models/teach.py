"""Accuracy of taught classifiers: `python -m benchmarks.models.teach [cifar speed-limits person] [--out FOLDER]`.

- `cifar`: car, dog, horse and ship of CIFAR-10, 10 labels each from the training pictures.
- `speed-limits`: 30, 50, 70 and 80 km/h of GTSRB, 20 labels each, every label from another track where there are
  enough tracks. With `--thorough` the upper blocks are trained too.
- `person`: person or nobody in the sample video of a corridor, 20 labels each from its first half.

Labels are drawn with a fixed seed, and `pointillist teach train` gets nothing else. Its bundle classifies test data
behind the drop, through the chain that runs live: the data sets' test pictures, and every frame of the video's second
half. A frame of the video shows a person if more than 5.5 % of its pixels differ by more than 20 grey levels from the
mean of the first ten frames, at 192×108, and nobody if less than .1 % do. Frames between the two are left out. The
frames nearest to both limits were checked by eye.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import data_file, sample_video
from benchmarks.harness.document import machine, report
from infra.local.process import COMMAND
from lab.data import to_frames
from lab.masks import random_masks
from lab.statistics import wilson
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json

DROP: Final = 0.25
MUST: Final = {"cifar": 0.85, "speed-limits": 0.70, "speed-limits --thorough": 0.78, "person": 0.95}
CORRIDOR: Final = "intel_one-by-one-person-detection.mp4"
_CIFAR: Final = {"car": 1, "dog": 5, "horse": 7, "ship": 8}
_LIMITS: Final = {"30": 1, "50": 2, "70": 4, "80": 5}
_PERSON_FROM: Final = 0.055
_NOBODY_BELOW: Final = 0.001
_LEVELS: Final = 20
_SMALL: Final = (192, 108)
_BATCH: Final = 32

Pictures = NDArray[np.uint8]
Data = dict[str, tuple[Pictures, Pictures]]
"""Labelled and test pictures (n, H, W, 3) of each class."""


def cifar(seed: int, limit: int) -> Data:
    """Return 10 labels of each class, and at most `limit` test pictures."""
    with np.load(data_file("cifar10.npz")) as file:
        train, labels, test, truth = (file[name] for name in ("train_x", "train_y", "test_x", "test_y"))
    rng = np.random.default_rng(seed)
    return {
        name: (train[rng.permutation(np.flatnonzero(labels == number))[:10]], test[truth == number][:limit])
        for name, number in _CIFAR.items()
    }


def speed_limits(seed: int, limit: int) -> Data:
    """Return 20 labels of each class, and at most `limit` test pictures."""
    with np.load(data_file("gtsrb.npz")) as file:
        train, labels, tracks, test, truth = (
            file[name] for name in ("train_x", "train_y", "train_track", "test_x", "test_y")
        )
    rng = np.random.default_rng(seed)
    found = {}
    for name, number in _LIMITS.items():
        places = rng.permutation(np.flatnonzero(labels == number))
        _, first = np.unique(tracks[places], return_index=True)
        found[name] = train[places[np.sort(first)[:20]]], test[truth == number][:limit]
    return found


def person(seed: int, limit: int) -> Data:
    """Return 20 labels of each class from the first half of the video, and at most `limit` frames of the second."""
    frames = corridor()
    truth = np.array(truths(frames))
    half, rng = len(frames) // 2, np.random.default_rng(seed)
    found = {}
    for name in ("nobody", "person"):
        places = np.flatnonzero(truth == name)
        own = np.sort(rng.permutation(places[places < half])[:20])
        found[name] = (
            np.stack([frames[i] for i in own]),
            np.stack([frames[i] for i in places[places >= half][:limit]]),
        )
    return found


def corridor() -> list[Pictures]:
    """Return the frames (H, W, 3) of the sample video."""
    with av.open(str(sample_video(CORRIDOR))) as video:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in video.decode(video=0)]


def truths(frames: Sequence[Pictures]) -> list[str]:
    """Return `person`, `nobody` or an empty string for each frame of the sample video."""
    small = np.stack([np.asarray(Image.fromarray(each).convert("L").resize(_SMALL)) for each in frames]).astype(int)
    shares = (np.abs(small - small[:10].mean(0)) > _LEVELS).mean((1, 2))
    return ["person" if each > _PERSON_FROM else "nobody" if each < _NOBODY_BELOW else "" for each in shares]


TASKS: Final[dict[str, Callable[[int, int], Data]]] = {
    "cifar": cifar, "speed-limits": speed_limits, "person": person,
}  # fmt: skip


def measured(data: Data, thorough: bool, folder: Path) -> dict[str, Any]:
    """Train by the command line, and judge the test pictures behind the drop."""
    for name, (labelled, _) in data.items():
        (folder / "labels" / name).mkdir(parents=True)
        for number, picture in enumerate(labelled):
            Image.fromarray(picture).save(folder / "labels" / name / f"{number:03d}.png")
    out, figures = folder / "bundle", folder / "report.json"
    command = [*COMMAND, "teach", "train", str(folder / "labels"), "--name", "taught", "--out", str(out)]
    command += ["--json", str(figures), "--drop-ratio", str(DROP), *(["--thorough"] if thorough else [])]
    subprocess.run(command, check=True, stdout=sys.stderr)
    bundle = load_bundle(out, torch.device("cpu"))
    pipeline, chance = Pipeline(bundle), torch.Generator().manual_seed(0)
    labels, verdicts, confidences = [], [], []
    for name, (_, pictures) in data.items():
        for start in range(0, len(pictures), _BATCH):
            frames = to_frames(pictures[start : start + _BATCH], torch.device("cpu"))
            kept = random_masks(len(frames), frames.shape[2], frames.shape[3], DROP, chance)
            with torch.inference_mode():
                found = pipeline(drop(frames, kept), kept)
            labels += [bundle.settings.classes.index(name)] * len(frames)
            verdicts += found.class_id.tolist()
            confidences += found.confidence.tolist()
    right = np.array(labels) == np.array(verdicts)
    sure = np.array(confidences) >= bundle.settings.unsure_below
    trained = json.loads(figures.read_text())
    return {
        "right": wilson(int(right.sum()), len(right))._asdict(), "tested": len(right),
        "unsure": float(1 - sure.mean()), "right_when_sure": float(right[sure].mean()) if sure.any() else None,
        "cross_validated": trained["right"]["value"], "head": trained["head"], "thorough": trained["thorough"],
        "training_s": trained["seconds"],
    }  # fmt: skip


def page(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = ["| task | right (95 %) | must | sure and right | unsure | cross-validated | trained in | load | head |"]
    rows.append("| --- " * 9 + "|")
    for name, each in sorted(document["tasks"].items()):
        right = each["right"]
        when_sure = "–" if each["right_when_sure"] is None else f"{each['right_when_sure']:.3f}"
        rows.append(
            f"| {name} | {right['value']:.3f} ({right['low']:.3f}–{right['high']:.3f}) of "
            f"{each['tested']} | {MUST.get(name.partition(' --seed')[0], 0):.2f} | {when_sure} | "
            f"{each['unsure']:.3f} | {each['cross_validated']:.3f} | {each['training_s']:.0f} s | {each['load']} | "
            f"{each['head']} |"
        )
    words = (
        "`python -m benchmarks.models.teach TASK --out FOLDER` keeps the rows of other tasks. A quarter of the "
        f"pixels is dropped. {document['machine']['cores']} cores; the load is that of the machine at the beginning. "
        "`person` is easy: its test pictures are the second half of the video that was labelled, without the frames "
        "in which a small part changes, and frames of one video resemble each other, so its interval is too narrow. "
        "So are those of `speed-limits`, whose test pictures hold several of one sign. "
        "Each row is one draw of the labels, by the seed 0 unless it names another; intervals are of the test pictures "
        "alone, and draws differ."
    )
    return "\n".join(["# Classifiers taught by a few dozen labels", "", words, "", *rows, ""])


def main() -> None:
    """Measure, print, and write the page with its JSON."""
    arguments = command_line(
        __doc__,
        *TASKS,
        out=Path,
        seed=0,
        limit=Option(10**6, "test pictures of each class at most"),
        thorough=Option(False, "train the upper blocks too"),
    )
    file = None if arguments.out is None else arguments.out / "teach.json"
    tasks = read_json(file).get("tasks", {}) if file else {}
    for name in arguments.names or TASKS:
        load = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(prefix="pointillist-teach-") as folder:
            found = measured(TASKS[name](arguments.seed, arguments.limit), arguments.thorough, Path(folder))
        key = f"{name} --thorough" if arguments.thorough else name
        key += f" --seed {arguments.seed}" if arguments.seed else ""
        tasks[key] = found | {"seed": arguments.seed, "load": load}
    document = {"tasks": tasks, "machine": machine("torch", "numpy", cores=len(os.sched_getaffinity(0)))}
    sys.stdout.write(page(document))
    if file is not None:
        write_text(file.with_name("README.md"), page(document))
        report(document, file, shown=False)


if __name__ == "__main__":
    main()
