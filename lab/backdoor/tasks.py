"""The data sets, split between the attacker (training), the defender (few pictures) and the evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.backdoor.networks import cifar10_convolutional, gtsrb_convolutional, mnist_dense
from lab.data import LabelledPictures
from lab.training.cifar10 import CLASSES as CIFAR10_CLASSES
from processors.networks.resnet import resnet20
from schemas.errors import ConfigError

HELD_OUT: Final = 1000
"""Pictures of the defender. No network was trained on them, and they are not used for evaluation."""
VALID: Final = 500
"""Pictures of D_valid among these `HELD_OUT`. The others, stamped, become the quarantine."""


@dataclass(frozen=True)
class Task:
    """One data set: `train` for the attacker, `held_out` for the defender, `test` for the evaluation."""

    classes: tuple[str, ...]
    train: LabelledPictures
    held_out: LabelledPictures
    test: LabelledPictures

    @cached_property
    def state(self) -> str:
        """Return a digest that changes with any picture or label."""
        total = hashlib.blake2b(digest_size=12)
        for part in (self.train, self.held_out, self.test):
            total.update(f"{part.images.shape} ".encode())
            total.update(np.ascontiguousarray(part.images).data)
            total.update(np.ascontiguousarray(part.labels).data)
        return total.hexdigest()

    @property
    def valid(self) -> LabelledPictures:
        """D_valid: the defender's clean pictures with their labels."""
        return self.held_out.first(VALID)

    @property
    def stream(self) -> LabelledPictures:
        """Return the pictures that the defender's cameras captured before any stamping."""
        return self.held_out.take(np.arange(VALID, len(self.held_out)))


@dataclass(frozen=True)
class Architecture:
    """A network by its factory's name, as in a bundle."""

    factory: str
    make: Callable[[], Any]


ARCHITECTURES: Final = {
    "mnist-dense": Architecture("lab.backdoor.networks:mnist_dense", mnist_dense),
    "gtsrb-convolutional": Architecture("lab.backdoor.networks:gtsrb_convolutional", gtsrb_convolutional),
    "cifar10-convolutional": Architecture("lab.backdoor.networks:cifar10_convolutional", cifar10_convolutional),
    "resnet20": Architecture("processors.networks.resnet:resnet20", lambda: resnet20(10)),
}


def load_task(name: str, folder: Path) -> Task:
    """Return the data set `mnist`, `gtsrb` or `cifar10` from `folder`. Raises ConfigError if it is missing.

    MNIST and CIFAR-10: the last 1,000 training pictures are held out, and the official test split is for evaluation.
    GTSRB: its training pictures are frames of few tracks. So every fourth test picture is held out instead, 1,000 at
    most, and the others are for evaluation.
    """
    file = folder / f"{name}.npz"
    if not file.is_file():
        raise ConfigError(f"data set {file} is missing: put it there, or name its folder")
    with np.load(file) as data:
        train = _pictures(f"{name} train", data["train_x"], data["train_y"])
        test = _pictures(f"{name} test", data["test_x"], data["test_y"])
    if name == "gtsrb":
        mixed = np.random.default_rng(0).permutation(len(test))
        held_out = mixed[: len(test) // 4][:HELD_OUT]
        judged = np.sort(np.setdiff1d(mixed, held_out))
        classes = tuple(f"sign-{number:02}" for number in range(43))
        return Task(classes, train, test.take(held_out), test.take(judged))
    split = len(train) - HELD_OUT
    classes = CIFAR10_CLASSES if name == "cifar10" else tuple("0123456789")
    return Task(classes, train.first(split), train.take(np.arange(split, len(train))), test)


def _pictures(name: str, images: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> LabelledPictures:
    return LabelledPictures(name, images[..., None] if images.ndim == 3 else images, labels.astype(np.int64))
