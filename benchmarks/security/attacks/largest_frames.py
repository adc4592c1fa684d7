"""Frames of the largest size that processors accept by default, from one camera with a valid key."""

from __future__ import annotations

from pathlib import Path

from benchmarks.security.attacks.outcome import Outcome
from benchmarks.security.attacks.pixel_bomb import bombed

LARGEST_TAKEN = (1088, 1920)
"""Height and width: as many pixels as `schemas.limits.USUAL_FRAME_PIXELS`."""


def attack(folder: Path) -> Outcome:
    """Test the device-time quota: the bound on pixels does not stop these frames.

    The aim is to delay the other cameras.
    """
    return bombed(folder / "largest", LARGEST_TAKEN)
