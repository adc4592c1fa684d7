"""The eavesdropper's ways to guess pictures from sent frames, and the quality of the guesses.

Each way takes the pixel fields of frames as they are on a disk. The eavesdropper gets more than any real one: half of
the scene's pictures for training, and the number of kept pixels of each frame. So a way that recovers any part of a
picture has a higher PSNR than the mean picture, after blending with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.keys.keys import CameraKey
from schemas.pixels.masks import kept_mask

Floats = NDArray[np.float32]
_RIDGES = (1e2, 1e4, 1e6, 1e8)


class Heard(NamedTuple):
    """One frame as the eavesdropper has it, and its true picture."""

    boot_id: int
    seq: int
    data: bytes
    """The frame's field `pixels` in the profile `raw`."""
    picture: NDArray[np.uint8]
    """The true picture, (H, W, C)."""


def lined_up(data: bytes, shape: tuple[int, int, int]) -> Floats:
    """Return the bytes as pixels in raster order, spread evenly over a picture (H, W, C)."""
    height, width, channels = shape
    pixels = np.frombuffer(data, np.uint8)[: len(data) // channels * channels].reshape(-1, channels)
    at = np.arange(height * width) * len(pixels) // (height * width)
    return pixels[at].reshape(shape).astype(np.float32)


def row_by_row(frames: Sequence[Heard]) -> Floats:
    """Return each frame aligned by `lined_up`, (N, H, W, C)."""
    return np.stack([lined_up(each.data, each.picture.shape) for each in frames])


def over_time(frames: Sequence[Heard]) -> Floats:
    """Return the mean of each aligned frame and the four on either side, which removes noise from a still scene."""
    alone = row_by_row(frames)
    return np.stack([alone[max(0, i - 4) : i + 5].mean(axis=0) for i in range(len(alone))])


def as_if_keystreams_repeat(
    known: Sequence[Heard], key: CameraKey, dropped: int
) -> Callable[[Sequence[Heard]], Floats]:
    """Return a guess that assumes repeated keystreams.

    Each frame is XORed with a known frame and with that frame's known plaintext. The masks of known frames are given.
    """
    first = known[0]
    height, width, _ = first.picture.shape
    kept = kept_mask(key, first.boot_id, first.seq, height, width, dropped)
    stream = np.frombuffer(first.data, np.uint8) ^ first.picture[kept].reshape(-1)

    def guess(frames: Sequence[Heard]) -> Floats:
        found = [(np.frombuffer(each.data, np.uint8) ^ stream).tobytes() for each in frames]
        return np.stack([lined_up(data, each.picture.shape) for data, each in zip(found, frames, strict=True)])

    return guess


def under_key(key: CameraKey, dropped: int, mean: Floats) -> Callable[[Sequence[Heard]], Floats]:
    """Return a guess that opens each frame with `key` and places pixels by that key's mask, on the `mean` picture."""

    def guess(frames: Sequence[Heard]) -> Floats:
        found = []
        for each in frames:
            picture, shape = mean.copy(), each.picture.shape
            kept = kept_mask(key, each.boot_id, each.seq, shape[0], shape[1], dropped)
            opened = np.frombuffer(key.opened(each.boot_id, each.seq, each.data), np.uint8)
            picture[kept] = opened.reshape(-1, shape[2])
            found.append(picture)
        return np.stack(found)

    return guess


def learned(known: Sequence[Heard], hold_out: Sequence[Heard], mean: Floats) -> Callable[[Sequence[Heard]], Floats]:
    """Return a guess by ridge regression of pictures on bytes, from `known` frames, added to the `mean` picture.

    The regularisation is chosen on frames of `hold_out`.
    """
    shape = known[0].picture.shape
    pictures = np.stack([each.picture for each in known]).reshape(len(known), -1).astype(np.float32)
    pictures -= pictures.mean(axis=0)
    centre = _bytes(known).mean(axis=0)
    inputs = _bytes(known) - centre
    gram = inputs @ inputs.T

    def fit(ridge: float) -> Callable[[Sequence[Heard]], Floats]:
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram), dtype=np.float32), pictures)

        def guess(frames: Sequence[Heard]) -> Floats:
            found: Floats = (_bytes(frames) - centre) @ (inputs.T @ weights)
            return mean + found.reshape(len(frames), *shape)

        return guess

    fits = [fit(ridge) for ridge in _RIDGES]
    shown = shown_in(hold_out)
    return min(fits, key=lambda guess: float(np.mean((guess(hold_out) - shown) ** 2)))


def _bytes(frames: Sequence[Heard]) -> Floats:
    return np.stack([np.frombuffer(each.data, np.uint8) for each in frames]).astype(np.float32)


def shown_in(frames: Sequence[Heard]) -> Floats:
    """Return the true pictures of the frames, (N, H, W, C)."""
    return np.stack([each.picture for each in frames]).astype(np.float32)


def psnr_db(found: Floats, shown: Floats) -> float:
    """Return the PSNR from the squared error over all of the pictures."""
    return float(10 * np.log10(255**2 / np.mean((found - shown) ** 2)))


def blended_db(
    guess: Callable[[Sequence[Heard]], Floats], known: Sequence[Heard], unknown: Sequence[Heard], mean: Floats
) -> tuple[float, float]:
    """Return the PSNR of a guess on `unknown` frames, alone and blended with the `mean` picture.

    The blending weight is the best one on `known` frames.
    """
    found, shown = guess(known), shown_in(known)
    off = found - found.mean(axis=0)
    power = float(np.mean(off * off))
    weight = float(np.mean(off * (shown - mean))) / power if power else 0.0
    after = guess(unknown)
    blend = mean + weight * (after - found.mean(axis=0))
    return psnr_db(after, shown_in(unknown)), psnr_db(blend, shown_in(unknown))
