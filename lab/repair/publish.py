"""Where a repair may write the cured network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lab.training import successor
from schemas.errors import ConfigError

MARK: Final = "repaired"
"""Behind the version of a cured bundle."""


def check_out(out: Path, source: Path, quarantine: Path) -> None:
    """Refuse before the work a folder that cannot be written, or that holds what a repair must not touch."""
    if out.resolve().is_relative_to(quarantine.resolve()):
        raise ConfigError(f"--out: expected a folder outside of the quarantine, which is read as a whole; got {out}")
    successor.check_out(out, source, MARK)
