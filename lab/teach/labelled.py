"""Labelled pictures in a folder with one sub-folder per class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lab.restoration.psnr import read_picture
from schemas.errors import ConfigError
from schemas.runtime.visible_files import visible_files

FEWEST: Final = 5
"""Fewest pictures of a class: each of the five parts of the cross-validation holds one."""
LONGEST_SIDE: Final = 1024
"""Longest side of a picture in pixels; larger ones are made smaller."""
MOST: Final = 750
"""Most pictures; of more, every class loses evenly spread ones."""


@dataclass(frozen=True)
class Labelled:
    """Pictures (H, W, 3) uint8 of any sizes, the class number of each, the names of the classes and of the files."""

    pictures: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    classes: list[str]
    files: list[str]

    def __len__(self) -> int:
        return len(self.pictures)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of pictures of each class, (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))


def read_labelled(folder: Path, skipped: Callable[[str, str], object] = lambda name, why: None) -> Labelled:
    """Read the pictures of `folder`, class by class and sorted by file name.

    `skipped` receives name and reason of each unreadable file. Raises ConfigError for fewer than two classes, or a
    class with fewer than `FEWEST` readable pictures.
    """
    if not folder.is_dir():
        raise ConfigError(f"pictures: expected a folder with a sub-folder for each class, got {folder}. Correct it.")
    inside = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(inside) < 2:
        raise ConfigError(
            f"{folder}: expected at least two sub-folders, named by class, got {len(inside)}. Add pictures of another "
            "class, such as `other`."
        )
    share = max(FEWEST, MOST // len(inside))
    pictures: list[NDArray[np.uint8]] = []
    labels, files = [], []
    for number, each in enumerate(inside):
        named = visible_files(each)
        before = len(pictures)
        for place in range(len(named)) if len(named) <= share else np.linspace(0, len(named) - 1, share).astype(int):
            try:
                picture = read_picture(named[place])
            except ConfigError as error:
                skipped(f"{each.name}/{named[place].name}", str(error))
                continue
            picture = _shrunk(picture)
            pictures.append(np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture)
            labels.append(number)
            files.append(f"{each.name}/{named[place].relative_to(each)}")
        if len(pictures) - before < FEWEST:
            raise ConfigError(
                f"{each}: expected at least {FEWEST} pictures, got {len(pictures) - before}. Label more of this class."
            )
    return Labelled(pictures, np.array(labels, np.int64), [each.name for each in inside], files)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture whose longer side is at most `LONGEST_SIDE` pixels: more would never reach the network."""
    longest = max(picture.shape[:2])
    if longest <= LONGEST_SIDE:
        return picture
    height, width = (max(1, round(side * LONGEST_SIDE / longest)) for side in picture.shape[:2])
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)).reshape(height, width, picture.shape[2])
