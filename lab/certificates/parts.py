"""Certified labels in parts that a cache keeps: the same measurement after a kill continues after the last part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from lab.cache import Arrays, Cache, digest
from lab.certificates.measure import Certified, Fill, measure
from lab.data import LabelledPictures
from processors.pipeline import Pipeline
from processors.stages.certify import ACROSS

PART: Final = 10
"""Pictures whose outcome is stored together."""


def measure_in_parts(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    patch: tuple[int, int],
    cache: Cache,
    made_from: str,
    *,
    across: int = ACROSS,
    fill: Fill = "restorer",
    advance: Callable[[int], object] = lambda count: None,
) -> Certified:
    """Return the outcome of `measure`, and store each part of it in `cache`.

    `made_from` identifies the code, the network and its arithmetic. A part is valid for the same pictures alone.
    """
    parts: list[Arrays] = []
    for start in range(0, len(pictures), PART):
        some = pictures.take(np.arange(start, min(len(pictures), start + PART)))

        def outcome(some: LabelledPictures = some) -> Arrays:
            found = measure(pipeline, some, patch, across=across, fill=fill)
            return {
                "labels": found.labels, "certified": found.certified, "passes": found.passes,
                "label_passes": found.label_passes,
            }  # fmt: skip

        name = f"{patch[0]}x{patch[1]}-{fill}-{across}-{start}"
        parts.append(cache.get(name, digest(made_from, some.images.shape, some.images.tobytes()), outcome))
        advance(len(some))
    labels, certified, passes, label_passes = (
        np.concatenate([part[name] for part in parts]) for name in ("labels", "certified", "passes", "label_passes")
    )
    return Certified(
        pictures.labels,
        labels.astype(np.int64),
        certified.astype(np.bool_),
        passes.astype(np.int64),
        label_passes.astype(np.int64),
    )
