"""A split of GTSRB's test pictures that keeps the frames of one sign, as far as they look alike, together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from lab.backdoor.tasks import HELD_OUT, Task, load_task
from lab.data import LabelledPictures

ALIKE: Final = 0.9
"""Correlation at a resolution of `SIDE` × `SIDE` from which two pictures of one class count as frames of one sign. Of a
test picture and the likest training picture of its class, which show different signs, it was .78 in the median
of a trial."""
SIDE: Final = 16


def load_split_task(name: str, folder: Path) -> Task:
    """Return the data set of the backdoor experiments: as `load_task`, and GTSRB as `split_by_sign`."""
    task = load_task(name, folder)
    return split_by_sign(task) if name == "gtsrb" else task


def split_by_sign(task: Task, seed: int = 0) -> Task:
    """Return the task with its held-out and test pictures drawn again, so that none of one part is `alike` one of the
    other.

    GTSRB does not name the sign of a test picture. Pictures of a class that look alike, or are linked by such pictures,
    count as one sign. A class holds out its share of `HELD_OUT` at most, so none of a group that is larger. What is
    missing then (2 % of GTSRB's, in a trial) are single pictures of the first classes.
    """
    every = LabelledPictures(
        task.test.name,
        np.concatenate([task.test.images, task.held_out.images]),
        np.concatenate([task.test.labels, task.held_out.labels]),
    )
    chance, share = np.random.default_rng(seed), HELD_OUT / len(every)
    held_out, others = list[int](), list[NDArray[np.intp]]()
    for label in np.unique(every.labels):
        places = np.flatnonzero(every.labels == label)
        signs, wanted = alike(every.images[places]), int(share * len(places))
        for number in chance.permutation(len(signs)):
            sign = places[signs[number]]
            if len(sign) > wanted:
                others.append(sign)
                continue
            held_out += sign.tolist()
            wanted -= len(sign)
    for sign in sorted(others, key=len):
        if len(sign) <= HELD_OUT - len(held_out):
            held_out += sign.tolist()
    chosen = chance.permutation(np.array(held_out))
    return Task(task.classes, task.train, every.take(chosen), every.take(np.setdiff1d(np.arange(len(every)), chosen)))


def alike(images: NDArray[np.uint8]) -> list[NDArray[np.intp]]:
    """Return the positions of the images (N, H, W, C) in groups: any two whose correlation exceeds `ALIKE` share one.

    H and W are multiples of `SIDE`.
    """
    count, height, width, channels = images.shape
    parts = images.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE, channels)
    small = parts.mean((2, 4), dtype=np.float64).reshape(count, -1)
    small -= small.mean(1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9)
    groups, group = connected_components(csr_array(small @ small.T > ALIKE), directed=False)
    return [np.flatnonzero(group == number) for number in range(groups)]
