"""The orientation of a recording: players turn and mirror its pictures by a display matrix, because telephones store
upright clips sideways."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Final

import av

from producers.sources.framing import Framing
from schemas.errors import SourceError

_MATRIX: Final = struct.Struct("=5i")
"""Begin of FFmpeg's display matrix: the directions, right and down, of a stored row, and of a stored column after a
third number that is not used."""


def orient(frames: Iterator[av.VideoFrame], framing: Framing, name: str) -> tuple[Framing, Iterator[av.VideoFrame]]:
    """Return the framing with the display matrix of a recording's first frame, and all frames again.

    Reads one frame. Raises `SourceError` if there is none, or if the turned pictures do not contain the region.
    """
    first = next(frames, None)
    if first is None:
        raise SourceError.of(name, "no frame of it decodes")
    degrees, mirrored = _orientation(first)
    framing = replace(framing, rotate=(framing.rotate + degrees) % 360, mirrored=mirrored)
    framing.check(name, first.width, first.height)
    return framing, chain((first,), frames)


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Return the degrees, clockwise, by which players turn the frame, and whether they exchange left and right before.

    A frame that they turn by another angle than a multiple of 90 degrees stays as it is stored.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return 0, False
    matrix = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's annotation lacks it
    across, down, _, other_across, other_down = _MATRIX.unpack_from(bytes(matrix))
    mirrored = across * other_down < down * other_across
    if mirrored:
        across, down = -across, -down
    degrees = round(math.degrees(math.atan2(down, across)))
    return (degrees % 360, mirrored) if degrees % 90 == 0 else (0, False)
