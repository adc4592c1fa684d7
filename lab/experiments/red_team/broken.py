"""A control of the lab's own attack: it must break defences that are known to be broken.

The attack is untargeted EOT-PGD, L∞ 8/255, through each defence around the bare network of a bundle. It uses the
defence's own gradient if that is useful, else BPDA. Attacked pictures are rounded to 8 bits. Accuracy is over all
pictures, including those that the bare network classifies wrongly. Figures are the mean over 10 draws of the defence,
and the share that survives all of them. Pictures are those of CIFAR-10's test split from the 1,000th on: the stand-in
for Shield was chosen on earlier ones. An interrupted measurement resumes after its last chunk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lab.attacks import (
    Defended,
    Logits,
    behind,
    bpda,
    eot_pgd,
    identity,
    jpeg_stand_in,
    learn_surrogate,
    shield_stand_in,
    shown,
    to_8_bits,
)
from lab.baselines import Baseline, BitDepth, FeatureDistillation, Jpeg, PixelDeflection, Rand, Shield
from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures, read_cifar10_test, to_frames
from lab.experiments.harness.page import Column, table
from lab.provenance import made_by
from lab.statistics import share_interval, wilson
from processors.bundle import Bundle

EPS: Final = 8 / 255
STEPS: Final = 20
TIMES: Final = 10
SEED: Final = 0
CHUNK: Final = 50
"""Number of pictures between two checkpoints."""
SEEN: Final = 1000
"""Number of pictures at the beginning of the test split that may have been used for choices."""
SURROGATE_PICTURES: Final = 2000
"""Number of pictures for the surrogate, from the end of the training split."""


@dataclass(frozen=True)
class Broken:
    """A defence with the attack's gradient: its number of `samples` and its `backward` pass.

    `backward` is "own", "identity", "stand-in" or "surrogate". Random defences have more than one sample.
    """

    name: str
    baseline: Baseline
    samples: int
    backward: str


DEFENCES: Final = (
    Broken("rand", Rand(), 4, "own"),
    Broken("jpeg-75", Jpeg(75), 1, "stand-in"),
    Broken("pixel-deflection", PixelDeflection(), 2, "own"),
    Broken("bit-depth-3", BitDepth(3), 1, "identity"),
    Broken("shield", Shield(), 4, "stand-in"),
    Broken("feature-distillation", FeatureDistillation(), 1, "identity"),
    Broken("jpeg-75", Jpeg(75), 1, "identity"),
    Broken("shield", Shield(), 4, "identity"),
    Broken("jpeg-75", Jpeg(75), 1, "surrogate"),
    Broken("bit-depth-3", BitDepth(3), 1, "surrogate"),
    Broken("shield", Shield(), 4, "surrogate"),
    Broken("rand", Rand(), 4, "identity"),
    Broken("pixel-deflection", PixelDeflection(), 2, "identity"),
)
"""The first six are the result. The others compare backward passes, on fewer pictures."""
MAIN: Final = 6


@dataclass(frozen=True)
class Row:
    """One line of the table. Accuracies are shares of `images`."""

    defence: str
    backward: str
    samples: int
    steps: int
    images: int
    undefended: float
    clean: float
    attacked: float
    attacked_low: float
    attacked_high: float
    survived: float
    survived_low: float
    survived_high: float
    seconds: float


def measure(broken: Broken, bundle: Bundle, pictures: LabelledPictures, training: Tensor, cache: Cache) -> Row:
    """Attack one defence on all the pictures, chunk by chunk, and return its row."""

    def logits(frames: Tensor) -> Tensor:
        return bundle.logits(bundle.prepare(frames))

    judged = behind(broken.baseline, logits)
    seen: list[Defended] = []

    def attacked_one() -> Defended:
        if not seen:
            seen.append(behind(_backward(broken, training), logits))
        return seen[0]

    parts = []
    for start in range(0, len(pictures), CHUNK):
        part = LabelledPictures(
            pictures.name, pictures.images[start : start + CHUNK], pictures.labels[start : start + CHUNK]
        )
        made_from = digest(
            broken, bundle.model_id, part.images.tobytes(), part.labels.tobytes(), EPS, STEPS, TIMES, SEED,
            made_by(f"{__name__}:_attack", f"{__name__}:_backward"),
        )  # fmt: skip

        def attack(part: LabelledPictures = part, start: int = start) -> Arrays:
            return _attack(judged, attacked_one(), logits, broken, part, SEED + start)

        parts.append(cache.get(f"{broken.name}/{broken.backward}/{start:05}", made_from, attack))
        done = np.concatenate([each["attacked"] for each in parts], 1)
        print(f"{broken.name} {broken.backward}: {done.shape[1]} pictures, {done.mean():.4f}", flush=True)
    together = {name: np.concatenate([each[name] for each in parts], -1) for name in parts[0]}
    attacked = together["attacked"].astype(np.bool_)
    mean, survived = share_interval(attacked), wilson(int(attacked.all(0).sum()), len(pictures))
    undefended, clean = float(together["undefended"].mean()), float(together["clean"].mean())
    return Row(
        broken.name, broken.backward, broken.samples, STEPS, len(pictures), undefended, clean, *mean, *survived,
        float(together["seconds"].sum()),
    )  # fmt: skip


def _backward(broken: Broken, training: Tensor) -> Baseline:
    if broken.backward == "own":
        return broken.baseline
    if broken.backward == "surrogate":
        return bpda(broken.baseline, learn_surrogate(broken.baseline, training, seed=SEED))
    if broken.backward == "stand-in" and isinstance(broken.baseline, Jpeg):
        return bpda(broken.baseline, jpeg_stand_in(broken.baseline.quality))
    if broken.backward == "stand-in" and isinstance(broken.baseline, Shield):
        return bpda(broken.baseline, shield_stand_in(broken.baseline))
    return bpda(broken.baseline, identity)


def _attack(
    judged: Defended,
    attacked: Defended,
    logits: Logits,
    broken: Broken,
    pictures: LabelledPictures,
    seed: int,
) -> Arrays:
    began = time.monotonic()
    frames, labels = to_frames(pictures.images, torch.device("cpu")), torch.from_numpy(pictures.labels)
    chance = torch.Generator().manual_seed(seed)
    bare, times = behind(identity, logits), TIMES if broken.samples > 1 else 1
    found = eot_pgd(attacked, frames, labels, None, eps=EPS, steps=STEPS, samples=broken.samples, generator=chance)
    rounded = to_8_bits(found)
    return {
        "undefended": shown(bare, frames, labels, times=1, generator=chance).numpy()[0],
        "clean": shown(judged, frames, labels, times=times, generator=chance).float().mean(0).numpy(),
        "attacked": shown(judged, rounded, labels, times=times, generator=chance).numpy(),
        "seconds": np.array([time.monotonic() - began]),
    }


def pictures_of(data: Path, classes: int, count: int) -> tuple[LabelledPictures, Tensor]:
    """Return the evaluation pictures, and frames (N, C, H, W) of the training split for the attacker's surrogate."""
    test = read_cifar10_test(data, classes)
    with np.load(data / "cifar10.npz") as archive:
        training = to_frames(archive["train_x"][-SURROGATE_PICTURES:], torch.device("cpu"))
    return test.take(np.arange(SEEN, len(test))).first(count), training


COLUMNS: tuple[Column[Row], ...] = (
    Column("defence", lambda row: row.defence),
    Column("gradient", lambda row: row.backward),
    Column("EOT", lambda row: str(row.samples)),
    Column("pictures", lambda row: str(row.images)),
    Column("clean", lambda row: f"{row.clean:.3f}"),
    Column("attacked", lambda row: f"**{row.attacked:.4f}** ({row.attacked_low:.4f}–{row.attacked_high:.4f})"),
    Column("survive 10 draws", lambda row: f"{row.survived:.4f} ({row.survived_low:.4f}–{row.survived_high:.4f})"),
)


def page(rows: list[Row], model_id: str, command: str) -> list[str]:
    """Return the table with the command that makes it."""
    return [
        "# Broken defences, broken again",
        f"EOT-PGD, L∞ 8/255, {STEPS} steps of 2.5·ε/{STEPS}, random start, untargeted, rounded to 8 bits; network: "
        f"`{model_id}`, accuracy without attack and defence {rows[0].undefended:.3f}. Accuracy is the mean "
        f"over {TIMES} draws of what draws, with a 95 % interval over pictures. Pictures from the {SEEN:,}th "
        f"of CIFAR-10's test split on. Seed {SEED}.",
        table(COLUMNS, rows),
        "Settings: Rand shrinks to 29–31 of 32 pixels; JPEG quality 75; Pixel Deflection share .002, window 10, "
        "σ .04; 3 bits; Shield qualities 20, 40, 60, 80; Feature Distillation steps 25 and 30.",
        f"`{command}`",
    ]
