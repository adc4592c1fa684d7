"""Settings of the announcer, which lists the cameras in Home Assistant."""

from __future__ import annotations

from pydantic import Field

from schemas.settings import HttpUrl, MqttSettings, RoleSettings


class AnnouncerSettings(RoleSettings, MqttSettings):
    """Settings of `pointillist homeassistant`."""

    database: str = ""
    """SQLAlchemy URL of the recorder's database, which is only read. Default: SQLite in the state folder."""
    only: tuple[str, ...] = ()
    """Patterns of the cameras to announce, such as `home/*`. Default: all cameras."""
    console: HttpUrl | None = None
    """URL of the console, http:// or https://, that the devices link to."""
    console_store: str = ""
    """SQLAlchemy URL of the console's own database: cameras that were removed there are no longer announced. Default:
    that of `up` on the state folder, SQLite in it unless `console.store` is set. Without either, removed cameras
    stay."""
    name: str = "announcer"
    """Name of the announcer. The MQTT client id is this name and a hash of the name and the database."""
    look_s: float = Field(default=2.0, gt=0)
    """Seconds between two readings of the database. A large fleet is read less often: reading takes at most a quarter
    of the time."""
    numbers_s: float = Field(default=30.0, gt=0)
    """Seconds after which changed figures are published even if nothing else has changed."""
    forgotten_s: float = Field(default=30.0, ge=0)
    """Seconds for which the devices of cameras stay that the database lacks and nobody has removed in the console. As
    long as the database has no cameras at all, all devices stay."""
