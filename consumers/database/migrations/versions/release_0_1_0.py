"""Version 3: the tables of release 0.1.0, where all upgrades begin."""

from __future__ import annotations

revision = "3"
down_revision = None


def upgrade() -> None:
    """Do nothing: these tables exist."""
