"""Version 10: an index that finds the newest alerts of each camera."""

from __future__ import annotations

from alembic import op

revision = "10"
down_revision = "9"


def upgrade() -> None:
    """Create the index."""
    op.create_index("alerts_by_camera", "alerts", ["camera", "wanted", "raised_ms"])
