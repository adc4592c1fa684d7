"""The images of an npz file as a source, with their labels as ground truth."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.sources.framing import Framing
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame
from schemas.errors import SourceError, first_line
from schemas.messages.frame import Truth


class Images(NamedTuple):
    """One split of a data set, shared by all cameras of the process: do not write to it."""

    pictures: NDArray[np.uint8]
    """(N, H, W, C), C = 1 or 3."""
    labels: NDArray[np.integer] | None
    """(N,), not negative."""


def load_images(file: Path, split: str) -> Images:
    """Return the split of an npz file, read once while the file is unchanged; `SourceError` when it is missing or
    invalid."""
    try:
        changed_ns = file.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(
            f"data set {file}: expected a readable file, got {error.strerror}. Correct the path."
        ) from None
    return _load(file, split, changed_ns)


@lru_cache(maxsize=4)
def _load(file: Path, split: str, changed_ns: int) -> Images:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names = (f"{split}_x", f"{split}_y") if f"{split}_x" in arrays else ("images", "labels")
            if names[0] not in arrays:
                raise SourceError(
                    f"data set {file}: expected an array {split}_x or images, got {', '.join(arrays) or 'none'}. "
                    "Correct the file."
                )
            pictures = arrays[names[0]]
            labels = arrays.get(names[1])
    except SourceError:
        raise
    except Exception as error:  # damage may break numpy, zipfile or zlib anywhere
        raise SourceError(
            f"data set {file}: expected an npz file of plain arrays, got {first_line(error)}. Correct the file."
        ) from None
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise SourceError(
            f"data set {file}: expected {names[0]} uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), got "
            f"{pictures.dtype} {pictures.shape}. Correct the file."
        )
    if labels is not None and (
        not np.issubdtype(labels.dtype, np.integer) or labels.shape != pictures.shape[:1] or (labels < 0).any()
    ):
        raise SourceError(
            f"data set {file}: expected {names[1]} of {len(pictures)} integers from 0, got {labels.dtype} "
            f"{labels.shape}. Correct the file."
        )
    pictures.flags.writeable = False
    return Images(pictures, labels)


class DatasetSource:
    """Every `stride`-th image from `offset` on (by default from the camera's index on)."""

    kind = "dataset"
    live = False
    blocking = False
    on_demand = False

    def __init__(self, settings: SourceSettings, camera_index: int) -> None:
        assert settings.file is not None  # by the settings' own check
        self._images = load_images(settings.file, settings.split)
        offset = camera_index if settings.offset is None else settings.offset
        self._chosen = range(offset, len(self._images.pictures), settings.stride)
        if not self._chosen:
            raise SourceError(
                f"data set {settings.file}: expected more than {offset} images, got {len(self._images.pictures)}. "
                "Correct the file."
            )
        self._loop = settings.loop
        self._frame = Framing.of(settings)
        self._position = 0

    def seek(self, position: int) -> None:
        """Continue at this image of the camera's share."""
        self._position = position

    def read(self) -> CapturedFrame | None:
        """Return the next image; None at the end."""
        position = self._position
        if position >= len(self._chosen) and not self._loop:
            return None
        index = self._chosen[position % len(self._chosen)]
        picture = self._frame(self._images.pictures[index])
        truth = None if self._images.labels is None else Truth(int(self._images.labels[index]))
        self._position = position + 1
        return CapturedFrame(picture, position, truth)

    def close(self) -> None:
        """Release nothing: the images are shared."""
