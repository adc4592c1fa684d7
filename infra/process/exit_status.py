"""Exit statuses of the roles that run cameras."""

from __future__ import annotations

from typing import Final

FLEET_DRAINED: Final = 0
FLEET_PENDING: Final = 3
"""Exit status of a fleet whose spools still held frames at the drain deadline."""
FRAMES_REFUSED: Final = 4
"""Exit status of an attached camera whose frames were rejected."""
