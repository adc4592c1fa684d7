"""The messages between a processor and its decoding processes, and the layout of their shared memory.

A request is a packet on a socket, its access unit lies at the beginning of the shared memory. The reply is a status and
a text. The planes of the picture lie behind the room for access units: luma, Cb, Cr, without gaps.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from schemas.limits import MAX_FRAME_BYTES
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import chroma_shape

UNIT_BYTES: Final = MAX_FRAME_BYTES
"""Room for one access unit."""
TEXT_BYTES: Final = 400
_REQUEST: Final = struct.Struct("<BIBHHI")


class Operation(IntEnum):
    """The kinds of requests."""

    OPEN = 0
    """Decode the first unit of a group with a new decoder."""
    NEXT = 1
    """Decode the next unit of the group."""
    ALONE = 2
    """Decode one unit that belongs to no group."""
    CLOSE = 3


class Status(IntEnum):
    """The kinds of replies."""

    READY = 0
    DECODED = 1
    REFUSED = 2
    """The unit does not decode to one picture of the expected size; the decoder is closed."""


class Request(NamedTuple):
    """One request; `decoder` is a number that the processor chose."""

    operation: Operation
    decoder: int
    codec: Codec
    height: int
    width: int
    unit_bytes: int

    def packed(self) -> bytes:
        """Return the packet."""
        return _REQUEST.pack(*self)

    @classmethod
    def of(cls, packet: bytes) -> Request:
        """Read the packet of `packed`."""
        operation, decoder, codec, *sizes = _REQUEST.unpack(packet)
        return cls(Operation(operation), decoder, Codec(codec), *sizes)


def picture_bytes(height: int, width: int) -> int:
    """Return the size of the planes of a picture."""
    rows, columns = chroma_shape(height, width)
    return height * width + 2 * rows * columns
