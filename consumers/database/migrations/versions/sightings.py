"""Version 6: sightings, alerts on a class or group, with the rules that raise them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Text, text

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Add the columns, empty, their index, and the table of rules."""
    op.add_column("alerts", Column("wanted", Text, nullable=False, server_default=""))
    op.add_column("alerts", Column("confidence", Float, nullable=False, server_default="0"))
    for name in ("ended_ms", "partition"):
        op.add_column("alerts", Column(name, BigInteger, nullable=False, server_default="0"))
    where = text("wanted != ''")
    op.create_index("alerts_of_sightings", "alerts", ["raised_ms"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "sighting_rules",
        Column("cameras", Text, primary_key=True),
        Column("wanted", Text, primary_key=True),
        Column("frames", BigInteger, nullable=False),
        *(Column(name, Float, nullable=False) for name in ("confidence", "absent_s", "cooldown_s")),
        Column("who", Text, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
