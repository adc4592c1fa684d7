"""The box of the motion in a frame, as its camera signs it: four bytes in the frame's head.

The sides are stated in 255ths of the frame's, first and last row, then first and last column. Both ends are included in
the pixels: a box is rounded outwards.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.errors import MalformedError

_PARTS: Final = 255


class Box(NamedTuple):
    """Rows and columns of pixels, from the first to before the last."""

    top: int
    bottom: int
    left: int
    right: int


def pack_moving(box: Box | None, height: int, width: int) -> int:
    """Return a box in a frame of `height` × `width` for the field `moving`; 0 for none."""
    if box is None:
        return 0
    first = (_PARTS * box.top // height, _PARTS * box.left // width)
    last = (-(-_PARTS * box.bottom // height), -(-_PARTS * box.right // width))
    return first[0] | last[0] << 8 | first[1] << 16 | last[1] << 24


def unpack_moving(moving: int, height: int, width: int) -> Box | None:
    """Return the box of the field `moving` in a frame of `height` × `width`; None for 0. It has at least one pixel."""
    if not moving:
        return None
    top, bottom, left, right = moving.to_bytes(4, "little")
    return Box(
        height * top // _PARTS, -(-height * bottom // _PARTS), width * left // _PARTS, -(-width * right // _PARTS)
    )


def check_moving(moving: int) -> None:
    """Raise MalformedError unless the field `moving` is 0 or a box that is not empty."""
    if not moving:
        return
    top, bottom, left, right = moving.to_bytes(4, "little")
    if not (top < bottom and left < right):
        raise MalformedError(
            f"moving: expected first < last of rows and columns, got {top} to {bottom} and {left} to {right}"
        )
