"""The output folder of a repair."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lab.training import successor
from schemas.errors import ConfigError

MARK: Final = "repaired"
"""Suffix of a repaired bundle's version."""


def check_out(out: Path, source: Path, quarantine: Path | None) -> None:
    """Reject a folder before the work if it is not writable, or contains data that a repair must not change."""
    if quarantine is not None and out.resolve().is_relative_to(quarantine.resolve()):
        raise ConfigError(f"--out: expected a folder outside of the quarantine, which is read as a whole, got {out}")
    successor.check_out(out, source, MARK)
