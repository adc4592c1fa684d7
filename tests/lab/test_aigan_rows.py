"""The rows of AI-GAN: a success is a picture that is taken for its target."""

from __future__ import annotations

import numpy as np

from lab.experiments.aigan.defences import NOTHING
from lab.experiments.aigan.rows import SuccessRow
from lab.experiments.aigan.run import rows_of

LABELS = np.array([0, 0, 1, 1])
TARGETS = np.array([1, 2, 0, 2])


def rows(defence: str = NOTHING) -> list[SuccessRow]:
    seen = {"clean": np.array([0, 0, 1, 2]), "attacked": np.array([1, 0, 0, 2])}
    return list(rows_of("mnist", "white-box", "AI-GAN", 0.3, defence, seen, TARGETS, LABELS))


def test_a_success_is_a_picture_that_is_taken_for_its_target_and_every_target_has_a_row() -> None:
    whole, *by_class = rows()
    assert (whole.target, whole.hits, whole.images, whole.share) == (-1, 3, 4, 0.75)
    assert whole.low < 0.75 < whole.high
    assert (whole.accuracy, whole.clean) == (0.25, 0.75)
    assert [(row.target, row.hits, row.images) for row in by_class] == [(0, 1, 1), (1, 1, 1), (2, 1, 2)]
    assert [row.target for row in rows("drop and reconstruction")] == [-1]
