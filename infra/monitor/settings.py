"""Settings of a monitor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from schemas.settings import KafkaSettings, MqttSettings, RoleSettings


class MonitorSettings(RoleSettings, MqttSettings, KafkaSettings):
    """Settings of `pointillist monitor`."""

    database: str = ""
    """SQLAlchemy URL of the recorder's database, where only the result of the audit is written; empty is SQLite in the
    state folder."""
    folder: Path | None = None
    """Folder whose disk is measured; none is the state folder, or the working directory without one."""
    look_s: float = Field(default=5.0, gt=0)
    """Seconds between two readings of Kafka, the machine and its GPUs."""
    audit_s: float = Field(default=10.0, gt=0)
    """Seconds between two audits. After three audits a missing frame counts as lost."""
