"""`pointillist homeassistant`: cameras as devices in Home Assistant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli import app
from infra.cli.access import MQTT, console_store, mqtt_place, require_brokers
from infra.cli.roles import COMMON, require_urls
from infra.settings.command import role_command
from infra.settings.variable import resolve

if TYPE_CHECKING:
    from consumers.homeassistant.settings import AnnouncerSettings


@role_command(app, "homeassistant", *MQTT, *COMMON, "database", "only", "console")
def homeassistant(settings: AnnouncerSettings) -> None:
    """Announce the cameras to Home Assistant by MQTT discovery, on its broker or (with --state alone) on the
    fleet's."""
    from consumers.homeassistant.announcer import run_announcer
    from infra.process.certificates import certificates_of
    from infra.process.metrics_server import software_version
    from infra.process.role import run_role
    from infra.state_folder import Layout

    require_urls(settings, "database")
    # The fleet's certificates are for the fleet's own broker, not for one that the user names.
    state = None if settings.mqtt else settings.state
    place = mqtt_place(str(settings.mqtt), state, "announcer", tls=settings.mqtt_tls, login=settings.mqtt_login_file)
    require_brokers(settings.connect_timeout_s, mqtt=place)
    layout = Layout((settings.state or Path()).resolve())
    found = settings.model_copy(
        update={
            "mqtt": place,
            "database": resolve(settings.database) or layout.database_url,
            "console_store": console_store(settings.console_store, settings.state),
        }
    )
    run_role(
        "announcer",
        settings.metrics,
        lambda registry, health, stop: run_announcer(
            found, software_version(), registry=registry, health=health, stop=stop
        ),
        certificates=certificates_of(found),
    )
