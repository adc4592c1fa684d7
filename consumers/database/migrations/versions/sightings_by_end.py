"""Version 9: an index that finds the sightings that last."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "9"
down_revision = "8"


def upgrade() -> None:
    """Create the index."""
    where = text("wanted != ''")
    op.create_index("alerts_by_end", "alerts", ["ended_ms"], sqlite_where=where, postgresql_where=where)
