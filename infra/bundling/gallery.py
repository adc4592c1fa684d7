"""A folder of a user's own pictures in a network's input size, with their classes if sub-folders name them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import LabelledPictures, to_frames, to_images
from lab.restoration.psnr import read_picture
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.runtime.visible_files import visible_files

UNKNOWN: Final = -1
"""The label of a picture without a known class."""
_FOLDED: Final = str.maketrans(dict.fromkeys("-_ ", ""))

T = TypeVar("T")


@dataclass(frozen=True)
class PictureFiles:
    """Picture files with the class number of each, or `UNKNOWN` for all."""

    files: list[Path]
    labels: NDArray[np.int64]

    @property
    def labelled(self) -> bool:
        """Whether the classes are known."""
        return bool(len(self.labels)) and bool((self.labels != UNKNOWN).all())

    def __len__(self) -> int:
        return len(self.files)


def picture_files(folder: Path, classes: Sequence[str], most: int) -> PictureFiles:
    """List at most `most` pictures of `folder`, or of its sub-folders named by class.

    They are spread evenly over the classes and over the files of each class, and over all classes if `most` is less.
    Names that do not match exactly are compared without regard to case, blanks, `-` and `_`. Hidden files and
    folders do not count. Raises ConfigError if there is no picture, or a sub-folder does not have the name of a class.
    """
    if not folder.is_dir():
        raise ConfigError(f"pictures: expected a folder, got {folder}. Correct the path.")
    inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    subfolders = [each for each in inside if each.is_dir()]
    files = [each for each in inside if each.is_file()]
    if files and subfolders:
        raise ConfigError(
            f"{folder}: expected pictures, or sub-folders of pictures named by class, got both "
            f"({files[0].name}, {subfolders[0].name}/). Keep one of the two."
        )
    if not subfolders:
        if not files:
            raise ConfigError(
                f"{folder}: expected pictures, or sub-folders of pictures named by class, got neither. Correct it."
            )
        chosen = [files[place] for place in _spread(len(files), most)]
        return PictureFiles(chosen, np.full(len(chosen), UNKNOWN, np.int64))
    numbers = [(each, _number(each.name, classes, folder)) for each in subfolders]
    queues = [[(file, number) for file in visible_files(each)] for each, number in numbers]
    found = _in_turn(queues, most)
    if not found:
        raise ConfigError(f"{folder}: expected pictures in the sub-folders, got none. Correct the path.")
    return PictureFiles([file for file, _ in found], np.array([number for _, number in found], np.int64))


def _spread(count: int, most: int) -> list[int]:
    """Return up to `most` places of 0 to `count` − 1, evenly spread: neighbouring pictures are often alike."""
    some = min(count, most)
    return [(2 * part + 1) * count // (2 * some) for part in range(some)]


def _in_turn(queues: Sequence[Sequence[T]], most: int) -> list[T]:
    """Return up to `most` members of the queues in turn, evenly spread over each queue.

    If there are more queues than `most`, the members come from some of them, evenly spread too.
    """
    filled = [queue for queue in queues if queue]
    chosen = [filled[place] for place in _spread(len(filled), most)]
    turns = sorted((turn, number) for number, queue in enumerate(chosen) for turn in range(len(queue)))[:most]
    shares = Counter(number for _, number in turns)
    places = [_spread(len(queue), shares[number]) for number, queue in enumerate(chosen)]
    return [chosen[number][places[number][turn]] for turn, number in turns]


def _number(name: str, classes: Sequence[str], folder: Path) -> int:
    if name in classes:
        return list(classes).index(name)
    near = [number for number, each in enumerate(classes) if _folded(each) == _folded(name)]
    if len(near) != 1:
        shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        raise ConfigError(f"{folder}: expected sub-folders named by class ({shown}), got {name}/. Rename it.")
    return near[0]


def _folded(name: str) -> str:
    return name.casefold().translate(_FOLDED)


def read_gallery(pipeline: Pipeline, chosen: PictureFiles, skipped: Callable[[str, str], object]) -> LabelledPictures:
    """Read the pictures as whole frames for the network: images (N, height, width, channels) uint8, and labels.

    `skipped` receives name and reason of each file that is unreadable or a copy: copies prove nothing, and STRIP lays
    no picture over itself. Raises ConfigError when none is left.
    """
    images, labels = [], []
    seen: dict[bytes, Path] = {}
    for file, label in zip(chosen.files, chosen.labels, strict=True):
        try:
            image = fit_to_network(pipeline, read_picture(file))
        except ConfigError as error:
            skipped(file.name, str(error))
            continue
        first = seen.setdefault(hashlib.blake2b(image.tobytes()).digest(), file)
        if first is not file:
            skipped(file.name, f"to the network it is a copy of {first.name}")
            continue
        images.append(image)
        labels.append(label)
    if not images:
        raise ConfigError(f"pictures: expected files that can be read, got {len(chosen)} that cannot. Replace them.")
    return LabelledPictures("own pictures", np.concatenate(images), np.array(labels, np.int64))


@torch.inference_mode()
def fit_to_network(pipeline: Pipeline, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit one picture (H, W, C) to the network's (1, height, width, channels); of tiles, the one that decides."""
    frames = to_frames(picture[None], pipeline.bundle.device)
    return to_images(pipeline.probe_input(frames, torch.zeros(1, dtype=torch.int64, device=pipeline.bundle.device)))


def round_robin(groups: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Return places of `count` members, one of each group in turn: the groups get nearly equal numbers.

    They are evenly spread over each group.
    """
    queues = [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]
    return np.array(_in_turn(queues, count), np.intp)
