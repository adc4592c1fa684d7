"""The order of a calibration's pictures."""

from __future__ import annotations

import numpy as np

from lab.data import LabelledPictures
from lab.strip.order import shuffled
from lab.strip.typicality import FOLDS


def test_each_fold_has_several_classes_even_if_the_file_alternates_them() -> None:
    labels = np.arange(200) % 10
    images = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    found = shuffled(LabelledPictures("in turn", images, labels))
    assert sorted(found.images[:, 0, 0, 0]) == list(range(200))
    assert (found.labels == found.images[:, 0, 0, 0] % 10).all()
    assert all(len(set(found.labels[fold::FOLDS])) > 4 for fold in range(FOLDS))
    assert (found.labels == shuffled(LabelledPictures("in turn", images, labels)).labels).all()
