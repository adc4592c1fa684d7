"""Access units of the profile `video`: one coded picture each, padded and sealed like the pixels of a frame.

    codec and colour   1 byte: the codec in the lower half, the colour in the upper
    change             2 bytes, little-endian: 0 without a comparison, else 1 + ⌈256 × change⌉, at most 65,535
    length n           3 bytes, little-endian
    data               n bytes
    zeros              up to a Padmé size

Padmé (Nikitin et al. 2019, "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", algorithm 1)
keeps the upper bits of a length and rounds the others up: at most 12 % more.

The change is measured before the codec, which alters pixels of a still picture and smooths out the noise of a live one.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, NamedTuple

from schemas.errors import BadPixelsError, BadSizeError
from schemas.limits import MAX_FRAME_BYTES
from schemas.pixels.planes import Colour

HEAD_BYTES: Final = 6
_MOST_CHANGE: Final = 2**16 - 1
LEAST_SIDE: Final = 64
"""Shortest side of a picture under `video`: every codec here accepts it, and a mask has eight blocks."""


class Codec(IntEnum):
    """The codec of an access unit."""

    H264 = 0
    AV1 = 1


class AccessUnit(NamedTuple):
    """One coded picture."""

    codec: Codec
    colour: Colour
    data: bytes | memoryview
    change: float | None = None
    """Mean change since the camera's previous picture, in grey levels of 255; None without a comparison."""


def padded_length(length: int) -> int:
    """Return the Padmé size of a length: the smallest one that is no shorter."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    step = 1 << exponent - exponent.bit_length()
    return -(-length // step) * step


def pack_unit(unit: AccessUnit) -> bytes:
    """Return the pixels of a frame; `BadSizeError` for a unit that is longer than a whole picture may be."""
    length = len(unit.data)
    if length > MAX_FRAME_BYTES:
        raise BadSizeError(f"access unit: expected at most {MAX_FRAME_BYTES} bytes, got {length}. Lower the quality.")
    packed = bytearray(padded_length(HEAD_BYTES + length))
    packed[0] = unit.codec | unit.colour << 4
    change = 0 if unit.change is None else min(1 + math.ceil(256 * unit.change), _MOST_CHANGE)
    packed[1:3] = change.to_bytes(2, "little")
    packed[3:HEAD_BYTES] = length.to_bytes(HEAD_BYTES - 3, "little")
    packed[HEAD_BYTES : HEAD_BYTES + length] = unit.data
    return bytes(packed)


def open_unit(packed: bytes | memoryview) -> AccessUnit:
    """Return the access unit of a frame's pixels; `BadPixelsError` for bytes that `pack_unit` cannot have returned."""
    view = memoryview(packed)
    length = int.from_bytes(view[3:HEAD_BYTES], "little")
    end = HEAD_BYTES + length
    fits = 0 < length <= MAX_FRAME_BYTES and len(view) == padded_length(end)
    if not fits or bytes(view[end:]).strip(b"\0"):
        raise BadPixelsError(f"access unit: expected a padded unit of {length} bytes, got {len(view)} bytes")
    try:
        codec, colour = Codec(view[0] & 15), Colour(view[0] >> 4)
    except ValueError:
        raise BadPixelsError(f"access unit: expected a known codec and colour, got the byte {view[0]:#04x}") from None
    change = int.from_bytes(view[1:3], "little")
    return AccessUnit(codec, colour, view[HEAD_BYTES:end], (change - 1) / 256 if change else None)


def check_video_size(height: int, width: int) -> None:
    """Raise `BadSizeError` unless pictures of this size may be sent under `video`."""
    if min(height, width) < LEAST_SIDE:
        raise BadSizeError(
            f"frame size: expected sides from {LEAST_SIDE} on under the profile video, got {width}x{height}. "
            "Use the profile raw or lossless for small pictures."
        )
