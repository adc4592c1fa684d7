"""Information in published verdicts: an attacker without key or network reads the class and its confidence.

    python -m lab.experiments.red_team.published --images 50

The target is the whole default of a shipped bundle at the fleet's drop ratio, each frame under a fresh mask. The attack
is L∞ 8/255, untargeted, 8 bits. Figures are the mean accuracy on attacked pictures over 10 fresh masks, and the share
that survives all of them. The stripes from which the search starts and the clean pictures are listed for
comparison. An interrupted run resumes.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lab.attacks import attack_verdicts, defended, shown, verdicts
from lab.data import LabelledPictures, read_cifar10_test, to_frames
from lab.experiments.cache import Arrays, Cache, digest
from lab.experiments.provenance import made_by
from lab.results.csv_rows import write_rows
from lab.results.markdown import markdown
from lab.statistics import share_interval, wilson
from processors.bundle import load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from schemas.runtime.atomic_file import replacing

EPS: Final = 8 / 255
SHARE: Final = 0.25
QUERIES: Final = (0, 2, 100, 300, 1000)
"""Numbers of verdicts on each picture. 0 is the clean picture; 2 leave little but the stripes of the start."""
TIMES: Final = 10
SEED: Final = 0
CHUNK: Final = 25


@dataclass(frozen=True)
class Row:
    """Figures of attacked pictures after this many queries each."""

    queries: int
    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    survived: float
    survived_low: float
    survived_high: float
    seconds: float


def measure(pipeline: Pipeline, pictures: LabelledPictures, queries: int, cache: Cache) -> Row:
    """Run the search with this many queries on all the pictures, chunk by chunk."""
    parts = []
    for start in range(0, len(pictures), CHUNK):
        images, labels = pictures.images[start : start + CHUNK], pictures.labels[start : start + CHUNK]
        made_from = digest(
            pipeline.bundle.model_id, images.tobytes(), labels.tobytes(), queries, EPS, SHARE, TIMES, SEED,
            made_by("lab.experiments.red_team.published"),
        )  # fmt: skip
        part = LabelledPictures(pictures.name, images, labels)

        def attack(part: LabelledPictures = part, start: int = start) -> Arrays:
            return _attack(pipeline, part, queries, SEED + start)

        parts.append(cache.get(f"{queries}/{start:05}", made_from, attack))
        done = np.concatenate([each["correct"] for each in parts], 1)
        print(f"{queries} queries: {done.shape[1]} pictures, {done.mean():.4f}", flush=True)
    correct = np.concatenate([each["correct"] for each in parts], 1).astype(np.bool_)
    survived = wilson(int(correct.all(0).sum()), len(pictures))
    seconds = float(sum(each["seconds"].sum() for each in parts))
    return Row(queries, len(pictures), *share_interval(correct), *survived, seconds)


def _attack(pipeline: Pipeline, pictures: LabelledPictures, queries: int, seed: int) -> Arrays:
    began, chance = time.monotonic(), torch.Generator().manual_seed(seed)
    whole = defended(pipeline, SHARE)
    frames, labels = to_frames(pictures.images, pipeline.bundle.device), torch.from_numpy(pictures.labels)
    if queries:
        frames = attack_verdicts(
            verdicts(whole), frames, labels, None, eps=EPS, queries=queries, generator=chance
        )  # fmt: skip
    correct = shown(whole, frames, labels, times=TIMES, generator=chance)
    return {"correct": correct.numpy(), "seconds": np.array([time.monotonic() - began])}


def page(rows: list[Row], model_id: str, command: str) -> str:
    """Return the table with the command that made it."""
    lines = [
        (
            str(row.queries), str(row.images), f"{row.accuracy:.3f} ({row.accuracy_low:.3f}–{row.accuracy_high:.3f})",
            f"{row.survived:.3f} ({row.survived_low:.3f}–{row.survived_high:.3f})",
        )
        for row in rows
    ]  # fmt: skip
    return "\n".join(
        (
            "# What published verdicts give away",
            "",
            f"The attacker changes what the lens sees by L∞ 8/255 and reads class and confidence of each frame, which "
            f"is sent under a mask of its own; no key, no network. `{model_id}`, default reconstruction, drop ratio "
            f"{SHARE:g}; accuracy over {TIMES} fresh masks, with 95 % intervals over pictures. Seed {SEED}.",
            "",
            markdown(("verdicts read", "pictures", "accuracy", "survive 10 masks"), lines),
            "",
            f"`{command}`",
            "",
        )
    )


def main() -> None:
    """Measure each number of queries, print as it goes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("docs/results/red-team"))
    parser.add_argument("--cache", type=Path, default=Path("runs/red-team/published"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pipeline = Pipeline(load_bundle(shipped_bundle("cifar10"), torch.device("cpu")))
    classes = len(pipeline.bundle.settings.classes)
    data = Path(os.environ.get("POINTILLIST_DATA", "."))
    pictures = read_cifar10_test(data, classes, arguments.images)
    rows: list[Row] = []
    for queries in QUERIES:
        rows.append(measure(pipeline, pictures, queries, Cache(arguments.cache)))
        write_rows(arguments.out / "published.csv", rows, Row)
        command = f"python -m {__spec__.name} --images {arguments.images}"
        with replacing(arguments.out / "published.md") as fresh:
            fresh.write_text(page(rows, pipeline.bundle.model_id, command), encoding="utf-8")


if __name__ == "__main__":
    main()
