"""Settings of the announcer, which lists the cameras in Home Assistant."""

from __future__ import annotations

from pydantic import Field

from schemas.settings import HttpUrl, MqttSettings, RoleSettings


class AnnouncerSettings(RoleSettings, MqttSettings):
    """Settings of `pointillist homeassistant`."""

    database: str = ""
    """SQLAlchemy URL of the recorder's database, which is only read; empty is SQLite in the state folder."""
    only: tuple[str, ...] = ()
    """Patterns of the cameras to announce, such as `home/*`; none announces all."""
    console: HttpUrl | None = None
    """URL of the console, http:// or https://, that the devices link to."""
    console_store: str = ""
    """SQLAlchemy URL of the console's own database: cameras that were forgotten there are removed. Empty is SQLite in
    the state folder. Without either, forgotten cameras stay."""
    name: str = "announcer"
    """Name of the announcer. The MQTT client id is this name with a hash of it and the database."""
    look_s: float = Field(default=2.0, gt=0)
    """Seconds between two readings of the database. A large fleet is read less often: for a quarter of the time at
    most."""
    numbers_s: float = Field(default=30.0, gt=0)
    """Seconds after which changed figures are published although nothing else has changed."""
    forgotten_s: float = Field(default=30.0, ge=0)
    """Seconds for which announcements of an earlier run stay although their cameras are missing."""
