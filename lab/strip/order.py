"""The order of the clean pictures of a calibration."""

from __future__ import annotations

import numpy as np

from lab.data import LabelledPictures


def shuffled(pictures: LabelledPictures) -> LabelledPictures:
    """Return the pictures in a random order, the same in each call.

    The folds of a calibration take pictures in turn. If a file holds its classes in turn as well, a fold would hold all
    pictures of a class, and the features of the other folds would have no mean for it.
    """
    return pictures.take(np.random.default_rng(0).permutation(len(pictures)))
