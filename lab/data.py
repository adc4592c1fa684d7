"""Labelled pictures for experiments: any npz with `images` and `labels`, or a split of CIFAR-10."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import ConfigError
from schemas.limits import MAX_SIDE

BATCH_PIXELS: Final = 2**18
"""Most pixels, height × width × frames, of a batch. A single larger frame forms a separate batch."""
BATCH_FRAMES: Final = 256


@dataclass(frozen=True)
class LabelledPictures:
    """Labelled pictures: `images` (N, H, W, C) uint8 with C 1 or 3, `labels` (N,) int64, and a name."""

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> LabelledPictures:
        """Return the first `count` pictures, or all if there are fewer."""
        return LabelledPictures(self.name, self.images[:count], self.labels[:count])

    def take(self, positions: NDArray[np.intp]) -> LabelledPictures:
        """Return the pictures at `positions` (n,)."""
        return LabelledPictures(self.name, self.images[positions], self.labels[positions])

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield frames (B, C, H, W) in [0, 1] and labels (B,), batch by batch."""
        for part in batch_slices(len(self), *self.images.shape[1:3]):
            labels = torch.from_numpy(self.labels[part]).to(device)
            yield to_frames(self.images[part], device), labels


def batch_slices(count: int, height: int, width: int) -> Iterator[slice]:
    """Yield slices of at most `BATCH_FRAMES` frames and `BATCH_PIXELS` pixels that cover `count` frames."""
    step = max(1, min(BATCH_FRAMES, BATCH_PIXELS // (height * width)))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


def to_frames(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return images (B, H, W, C) uint8 as frames (B, C, H, W) float32 in [0, 1]."""
    channels_first = np.array(images.transpose(0, 3, 1, 2), order="C")
    return torch.from_numpy(channels_first).to(device).float() / 255


def to_images(frames: Tensor) -> NDArray[np.uint8]:
    """Return frames (B, C, H, W) in [0, 1] as images (B, H, W, C) uint8, rounded."""
    rounded = (frames.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    pictures: NDArray[np.uint8] = rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pictures


def read_pictures(file: Path, classes: int, limit: int | None = None) -> LabelledPictures:
    """Return the first `limit` pictures of an npz with `images` (N, H, W, C) or (N, H, W) uint8 and `labels` (N,).

    Raises ConfigError in one line for a file that is not an npz, a missing key, a wrong type or shape, no picture, or a
    label outside 0 to `classes` − 1.
    """
    arrays = _arrays(file, ("images", "labels"))
    return _checked(file.name, str(file), arrays["images"], arrays["labels"], classes, limit)


def read_cifar10_test(folder: Path | None, classes: int, limit: int | None = None) -> LabelledPictures:
    """Return CIFAR-10's test split from the data folder. Raises ConfigError if it is missing."""
    if folder is None:
        raise ConfigError(
            "data set is missing: give --data FILE.npz, or set POINTILLIST_DATA to a folder with cifar10.npz"
        )
    file = folder / "cifar10.npz"
    arrays = _arrays(file, ("test_x", "test_y"))
    return _checked("CIFAR-10 test", str(file), arrays["test_x"], arrays["test_y"], classes, limit)


def read_last_training(file: Path, classes: int, count: int) -> LabelledPictures:
    """Return the last `count` training pictures of a data set: an npz with `train_x` and `train_y`.

    Raises ConfigError like `read_pictures`.
    """
    arrays = _arrays(file, ("train_x", "train_y"))
    every = _checked(f"{file.stem} held out", str(file), arrays["train_x"], arrays["train_y"], classes, None)
    return LabelledPictures(every.name, every.images[-count:], every.labels[-count:])


def _arrays(file: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    try:
        # If numpy opens an unreadable file itself, it leaves the file open.
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ConfigError(f"{file}: expected an npz with {' and '.join(names)}, got a single array")
            for name in names:
                if name not in archive.files:
                    have = ", ".join(archive.files) or "nothing"
                    raise ConfigError(f"{file}: expected the arrays {' and '.join(names)}, got {have}")
            return {name: archive[name] for name in names}
    except OSError as error:
        raise ConfigError(f"{file}: expected a readable file, got: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise ConfigError(f"{file}: expected an npz of plain arrays (no pickles), got another format") from None


def _checked(
    name: str,
    place: str,
    images: NDArray[np.generic],
    labels: NDArray[np.generic],
    classes: int,
    limit: int | None,
) -> LabelledPictures:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        got = f"{images.dtype} {images.shape}"
        raise ConfigError(f"{place}: expected images (N, H, W, 1 or 3) or (N, H, W) uint8, got {got}")
    if min(images.shape[1:3]) < 1 or max(images.shape[1:3]) > MAX_SIDE:
        raise ConfigError(f"{place}: expected images with sides from 1 to {MAX_SIDE}, got {images.shape[1:3]}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        got = f"{labels.dtype} {labels.shape}"
        raise ConfigError(f"{place}: expected labels ({len(images)},) of an integer type, one an image, got {got}")
    if not len(images):
        raise ConfigError(f"{place}: expected at least one image, got none")
    numbers = labels[:limit].astype(np.int64)
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if len(wrong):
        raise ConfigError(f"{place}: expected labels from 0 to {classes - 1}, the network's classes, got {wrong[0]}")
    pictures = images[:limit].astype(np.uint8, copy=False)
    return LabelledPictures(name, pictures[..., None] if pictures.ndim == 3 else pictures, numbers)
