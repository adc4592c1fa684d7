"""FFmpeg's scaler for decoded planes. Each thread keeps its own scalers: setting one up takes as long as a frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from schemas.pixels.packing import Picture
from schemas.pixels.planes import Colour, Plane, Planes

Values = NDArray[np.float32]

UNIT: Final = 256.0
"""FFmpeg's unit of a sum."""
HELD_BYTES: Final = 48 * 2**20
"""Memory of the source frames that a thread's scalers keep."""
_BT709: Final = (Colour.BT709_LIMITED, Colour.BT709_FULL)
_FULL: Final = (Colour.BT601_FULL, Colour.BT709_FULL)


class _ScalerKey(NamedTuple):
    """Source and target of a scaler."""

    lines: int
    columns: int
    source: str
    height: int
    width: int
    target: str


class _Scaler:
    """A scaler with its source frame, into which planes are copied."""

    def __init__(self, way: _ScalerKey) -> None:
        self._way = way
        self._reformatter = VideoReformatter()
        self._frame = av.VideoFrame(way.columns, way.lines, way.source)
        self.places = [_rows(plane, np.uint8)[:, : plane.width] for plane in self._frame.planes]
        self.nbytes = sum(plane.buffer_size for plane in self._frame.planes)

    def scaled(self, interpolation: Interpolation, **colours: int) -> av.VideoFrame:
        return self._reformatter.reformat(
            self._frame, self._way.width, self._way.height, self._way.target, interpolation=interpolation, threads=1,
            **colours,
        )  # fmt: skip


class _ScalerCache(threading.local):
    """The scalers of a thread that were used last."""

    def __init__(self) -> None:
        self.scalers: OrderedDict[_ScalerKey, _Scaler] = OrderedDict()
        self.nbytes = 0

    def of(self, way: _ScalerKey) -> _Scaler:
        found = self.scalers.get(way)
        if found is not None:
            self.scalers.move_to_end(way)
            return found
        found = self.scalers[way] = _Scaler(way)
        self.nbytes += found.nbytes
        while self.nbytes > HELD_BYTES and len(self.scalers) > 1:
            self.nbytes -= self.scalers.popitem(last=False)[1].nbytes
        return found


_kept = _ScalerCache()


def write_sums(
    planes: Sequence[Plane], selections: Sequence[Plane | None], scales: Sequence[Values], sums: Values
) -> None:
    """Write `UNIT` × weighted sums of selected samples × `scales` to `sums` (P, h, w): of luma, or of luma, Cb and Cr.

    A selection is 255 at selected samples and 0 at others, which count as 0; None selects all. Each scale is (h, w).
    The weights sum to one. They are those of `processors.stages.resample.resize`, rounded to 12 bits: a triangle as
    wide as two outputs, or as two inputs where the picture grows. The outermost samples have the weights outside of the
    picture as well.
    """
    lines, columns = planes[0].shape
    height, width = sums.shape[1:]
    scaler = _kept.of(_ScalerKey(lines, columns, "yuv420p", height, width, "yuv444p16le"))
    for place, plane, selection in zip(scaler.places, planes, selections, strict=False):
        if selection is None:
            place[:] = plane
        else:
            np.bitwise_and(plane, selection, out=place)
    found = scaler.scaled(Interpolation.BILINEAR, src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.JPEG)
    for summed, scale, written in zip(found.planes, scales, sums, strict=False):
        np.multiply(_rows(summed, np.uint16)[:, :width], scale, out=written)


def shown_planes(planes: Planes, height: int, width: int) -> Picture:
    """Return a decoded picture as (height, width, C) uint8 for people: RGB, or grey.

    The sums are integers of few bits: the result is within a few levels of `Pipeline.show`, in a third of its time.
    """
    lines, columns, channels = planes.shape
    source, target = ("gray", "gray") if channels == 1 else ("yuv420p", "rgb24")
    scaler = _kept.of(_ScalerKey(lines, columns, source, height, width, target))
    for place, samples in zip(scaler.places, (planes.luma, planes.blue, planes.red), strict=False):
        assert samples is not None
        place[:] = samples
    shown = scaler.scaled(
        Interpolation.AREA,
        src_colorspace=Colorspace.ITU709 if planes.colour in _BT709 else Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if planes.colour in _FULL else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    # A grey frame of this size already comes back as it is, and the next picture overwrites it.
    return shown.to_ndarray().reshape(height, width, channels).astype(np.uint8, copy=channels == 1)


def _rows(plane: av.video.plane.VideoPlane, kind: type[Any]) -> NDArray[Any]:
    """Return the lines of a plane, with their padding."""
    found = np.frombuffer(memoryview(plane)[: plane.height * plane.line_size], dtype=kind)
    return found.reshape(plane.height, -1)
