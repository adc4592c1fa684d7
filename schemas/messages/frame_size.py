"""The limit on a frame's pixels in readable form: the frame's size, the limit, and the largest size that fits."""

from __future__ import annotations

import math

from schemas.limits import BLOCK


def fitting_size(width: int, height: int, most_pixels: int) -> tuple[int, int]:
    """Return the largest size of about the same shape, in whole blocks, with at most `most_pixels`."""
    scale = min(1.0, math.sqrt(most_pixels / (width * height)))
    across, down = (max(BLOCK, int(side * scale) // BLOCK * BLOCK) for side in (width, height))
    # In a long strip, the shorter side cannot shrink as far.
    longest = max(BLOCK, most_pixels // min(across, down) // BLOCK * BLOCK)
    return min(across, longest), min(down, longest)


def over_size(width: int, height: int, most_pixels: int) -> str:
    """Return the reason why frames of this size are rejected, with a size that is accepted."""
    across, down = fitting_size(width, height, most_pixels)
    return (
        f"frame size: expected at most {most_pixels} pixels, got {width}x{height}. "
        f"Set the camera's size to {across}x{down} or smaller."
    )
