"""Frames in their packed form, placed on request, or resampled straight to the network's scale.

On a CPU, a large float32 frame exceeds the caches: writing and reading it is most of the cost of unpacking and
resampling. A frame for the network's scale (`processors.stages.at_scale`) is resampled from the packed bytes to
weighted sums, a strip of rows at a time. The frame itself is never made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from processors.stages import banded
from processors.stages.at_scale import weighed
from processors.stages.shapes import check_size
from processors.stages.unpack import place
from schemas.errors import StageError

STRIP_PIXELS: Final = 2**15
"""Number of pixels that fit, as float32 with their weights, into a core's own cache."""


class PackedFrames:
    """Frames (B, C, H, W) of one shape on a CPU: `pixels` (P, C) uint8 fill `sent` (B, 1, H, W) bool in raster order.

    `kept` (B, 1, H, W) is True where the drop kept a pixel; for a probe these are fewer than were sent.
    """

    def __init__(self, pixels: Tensor, sent: Tensor, kept: Tensor) -> None:
        self.kept = kept
        self.shape = torch.Size((len(sent), pixels.shape[1], *sent.shape[2:]))
        self._pixels = pixels
        self._sent = sent

    def __len__(self) -> int:
        return len(self._sent)

    def __getitem__(self, places: Sequence[int]) -> PackedFrames:
        """Return the frames at these positions, in this order."""
        if list(places) == list(range(len(self))):
            return self
        parts = [self._pixels[self._starts[i] : self._starts[i + 1]] for i in places]
        pixels = torch.cat(parts) if parts else self._pixels[:0]
        return PackedFrames(pixels, self._sent[list(places)], self.kept[list(places)])

    def cut(self, place: int, rows: slice, columns: slice) -> PackedFrames:
        """Return a part of the frame at `place`."""
        sent = self._sent[place, 0].numpy()
        before = self._starts[place] + np.count_nonzero(sent[: rows.start])
        lines = sent[rows]
        count = np.count_nonzero(lines)
        within = np.zeros_like(lines)
        within[:, columns] = lines[:, columns]
        pixels = self._pixels[before : before + count][torch.from_numpy(within[lines])]
        part = (slice(place, place + 1), slice(None), rows, columns)
        return PackedFrames(pixels, self._sent[part], self.kept[part])

    @cached_property
    def _starts(self) -> list[int]:
        counts = [np.count_nonzero(sent) for sent in self._sent.numpy()]
        return [0, *np.cumsum(counts).tolist()]

    @cached_property
    def placed(self) -> Tensor:
        """Return the frames, float32 in [0, 1], zero at missing pixels."""
        return place(self._pixels, self._sent)

    def at_scale(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the result of `processors.stages.at_scale.at_scale` for `placed` and `kept`, up to float32's rounding.

        A frame's result does not depend on the rest of the batch. Raises StageError for a size without pixels, or above
        the frames' own.
        """
        summed = self._sums(height, width)
        return weighed(summed[:, :-1], summed[:, -1:])

    def at(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], channel: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return one channel at the crossings of these rows and columns, (B, rows, columns), and a mask of the sent
        ones.
        """
        values = np.zeros((len(self), len(rows), len(columns)), np.uint8)
        had = np.zeros(values.shape, np.bool_)
        pixels = self._pixels.numpy()
        for i, sent in enumerate(self._sent[:, 0].numpy()):
            lines = sent[rows]
            before = np.concatenate(([0], np.count_nonzero(sent, axis=1).cumsum()))[rows]
            places = self._starts[i] + before[:, None] + lines.cumsum(axis=1)[:, columns] - 1
            had[i] = lines[:, columns]
            values[i][had[i]] = pixels[places[had[i]], channel]
        return values, had

    def for_people(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the result of `at_scale` within 1.5 grey levels ÷ the share of kept pixels, in less time.

        The sums are rounded to 8-bit integers, too coarse for a network. Raises StageError as `at_scale` does.
        """
        summed = self._rounded_sums(height, width)
        return weighed(summed[:, :-1], summed[:, -1:])

    def as_sent(self, height: int, width: int) -> Tensor:
        """Return the result of `processors.stages.resample.resize` for `placed`, (B, C, height, width), up to rounding.

        Raises StageError as `at_scale` does.
        """
        return PackedFrames(self._pixels, self._sent, self._sent)._sums(height, width)[:, :-1].clamp_(0, 1)

    def _rounded_sums(self, height: int, width: int) -> Tensor:
        """Return the result of `_sums` up to the rounding of 8-bit integers, once for each axis."""
        self._check(height, width)
        if width < 2:  # torch 2.13 resizes to one column wrongly
            return self._sums(height, width)
        channels, lines, columns = self.shape[1:]
        found = []
        for index in range(len(self)):
            (words,) = self._words_of(index, [slice(0, lines)])
            values = words.view(torch.uint8).view(1, lines, columns, channels + 1).permute(0, 3, 1, 2)
            found.append(F.interpolate(values, (height, width), mode="bilinear", align_corners=False, antialias=True))
        return torch.cat(found).to(torch.float32).div_(255)

    def _sums(self, height: int, width: int) -> Tensor:
        self._check(height, width)
        return torch.stack([self._summed(i, height, width) for i in range(len(self))])

    def _check(self, height: int, width: int) -> None:
        check_size(height, width)
        if height > self.shape[2] or width > self.shape[3]:
            raise StageError(f"size: expected up to {self.shape[2]}×{self.shape[3]}, got {height}×{width}")

    def _words_of(self, index: int, strips: Iterable[slice]) -> Iterator[Tensor]:
        """Yield the pixels of each strip of rows as words of C + 1 bytes, 255 in the last; zero where none was kept."""
        sent, kept = self._sent[index, 0], self.kept[index, 0]
        # Of a probe, more pixels were sent than its drop would have kept; the rest is not read.
        more = np.count_nonzero(kept.numpy()) != self._starts[index + 1] - self._starts[index]
        pixels = self._pixels[self._starts[index] : self._starts[index + 1]].numpy()
        first = 0
        for strip in strips:
            where = sent[strip].flatten().to(torch.int32)
            source = where.cumsum(0, dtype=torch.int32)
            count = int(source[-1])
            # The first word stands for every pixel that was not sent.
            words = torch.from_numpy(_words(pixels[first : first + count])).index_select(0, source.mul_(where))
            first += count
            if more:
                words *= kept[strip].flatten()
            yield words

    def _summed(self, index: int, height: int, width: int) -> Tensor:
        """Return weighted sums (C + 1, height, width) of the kept pixels of one frame in [0, 1] and of its mask."""
        channels, lines, columns = self.shape[1:]
        sums = torch.zeros(height, columns * (channels + 1))
        strips = banded.strips(lines, height, max(1, STRIP_PIXELS // columns))
        for strip, words in zip(strips, self._words_of(index, (each.lines for each in strips)), strict=True):
            values = words.view(torch.uint8).view(-1, columns * (channels + 1)).to(torch.float32)
            sums[strip.outputs].addmm_(strip.weights, values)
        planes = sums.view(height, columns, channels + 1).permute(2, 0, 1).reshape(-1, columns)
        narrow = torch.empty((channels + 1) * height, width)
        for part in banded.columns(columns, width):
            torch.mm(planes[:, part.lines], part.weights, out=narrow[:, part.outputs])
        return narrow.div_(255).view(channels + 1, height, width)


def _words(pixels: NDArray[np.uint8]) -> NDArray[np.signedinteger[Any]]:
    """Return pixels (n, C) with 255 behind each, as n + 1 words of C + 1 bytes, of which the first is zero."""
    count, channels = pixels.shape
    words = np.zeros(count + 1, dtype=f"<u{channels + 1}")
    if count:
        flat = np.ascontiguousarray(pixels)
        # Words begin at each pixel and reach into the next one; behind the last there is none.
        words[1:-1] = np.ndarray((count - 1,), words.dtype, flat, strides=(channels,))
        words[-1] = int.from_bytes(flat[-1].tobytes(), "little")
        words[1:] |= words.dtype.type(255 << 8 * channels)
    return words.view(f"<i{channels + 1}")
