"""Version 4: the version is in Alembic's own table too. The count with the version keeps earlier releases out."""

from __future__ import annotations

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Do nothing: each upgrade writes the version to both places."""
