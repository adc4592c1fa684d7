"""Settings of a monitor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from schemas.settings import HttpUrl, KafkaSettings, MqttSettings, RoleSettings


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
    alertmanager: HttpUrl | None = None
    """URL of the Alertmanager that gets the open backdoor alerts; without one none are posted."""
    console: HttpUrl | None = None
    """URL at which people reach the console, for the links in these alerts."""
    console_store: str = ""
    """SQLAlchemy URL of the console's own database: an alert ends when its episode is closed there. Empty is SQLite in
    the state folder. Without either, an alert ends 15 minutes after it was raised."""
    alerts_s: float = Field(default=1.0, gt=0)
    """Seconds between two searches for new alerts."""
