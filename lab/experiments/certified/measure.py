"""Certified accuracy on CIFAR-10's test pictures and on simulated scenes.

Torch computes in float32. A killed measurement continues after the last part that the cache holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lab.backdoor.files import stamped_pictures
from lab.backdoor.poison import Poisoning
from lab.cache import Cache, digest
from lab.certificates.measure import Fill
from lab.certificates.parts import measure_in_parts
from lab.data import read_cifar10_test
from lab.experiments.scale.measure import CONDITIONS, scenes
from lab.statistics import wilson
from processors.bundle import load_bundle
from processors.pipeline import Pipeline

STAMPED: Final = "cifar10, stamped"
"""CIFAR-10's test pictures of other classes than the target's, with the trigger of a backdoored network."""


@dataclass(frozen=True)
class Subject:
    """A row's key: a network, its pictures, the sticker in pixels, the filling, and the number of pictures."""

    network: str
    pictures: str
    rows: int
    columns: int
    fill: Fill = "restorer"
    count: int = 1000
    windows: int = 6

    @property
    def name(self) -> str:
        """The name of the cell."""
        return f"{self.network}/{self.pictures}/{self.rows}x{self.columns}/{self.fill}/{self.windows}"


@dataclass(frozen=True)
class Row:
    """Shares of n pictures with intervals of 95 %, and mean passes of a picture.

    `certified`: the true label behind every pair of windows. `clean`: the true label by double masking. `passes` counts
    those of the certificate, `label_passes` those of the label alone.
    """

    network: str
    pictures: str
    rows: int
    columns: int
    fill: str
    windows: int
    n: int
    certified: float
    certified_low: float
    certified_high: float
    clean: float
    clean_low: float
    clean_high: float
    passes: float
    label_passes: float


def certified(
    subject: Subject,
    bundle: Path,
    data: Path | None,
    cache: Cache,
    made_from: str,
    poisoning: Poisoning | None = None,
) -> Row:
    """Measure one row. `made_from` identifies the code and the inputs of stored parts, `poisoning` stamps pictures."""
    network = load_bundle(bundle, torch.device("cpu"))
    pipeline = Pipeline(network)
    if subject.pictures in ("cifar10", STAMPED):
        pictures = read_cifar10_test(data, len(network.settings.classes), subject.count)
        if poisoning is not None:
            attacked = np.flatnonzero(poisoning.attacks(pictures.labels))
            pictures = stamped_pictures(pictures.take(attacked), poisoning)
    else:
        width, height = map(int, subject.pictures.removeprefix("scenes-").split("x"))
        pictures = scenes(subject.count, (height, width), CONDITIONS["usual"])
    found = measure_in_parts(
        pipeline, pictures, (subject.rows, subject.columns), cache, digest(made_from, subject.name),
        across=subject.windows, fill=subject.fill,
    )  # fmt: skip
    shares = [wilson(int(right.sum()), len(right)) for right in (found.robust, found.clean)]
    return Row(
        subject.network, subject.pictures, subject.rows, subject.columns, subject.fill, subject.windows, len(pictures),
        *shares[0], *shares[1], float(found.passes.mean()), float(found.label_passes.mean()),
    )  # fmt: skip
