"""Frames of the largest size that processors take unless they are told otherwise, from one camera with a valid key."""

from __future__ import annotations

from pathlib import Path

from benchmarks.attacks.outcome import Outcome
from benchmarks.attacks.pixel_bomb import bombed

LARGEST_TAKEN = (1088, 1920)
"""As many pixels as `schemas.limits.USUAL_FRAME_PIXELS`."""


def attack(folder: Path) -> Outcome:
    """What the bound on pixels does not stop, and the quota of device time has to. The aim: that the others wait."""
    return bombed(folder / "largest", LARGEST_TAKEN)
