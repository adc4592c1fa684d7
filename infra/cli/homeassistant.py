"""`pointillist homeassistant`: cameras as devices in Home Assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import BROKER_WAIT_S, BrokerWait, Mqtt, MqttLogin, MqttTls, mqtt_place, require_brokers
from infra.cli.passwords import resolve
from infra.cli.roles import Metrics, State
from schemas.errors import ConfigError


@app.command()
def homeassistant(
    mqtt: Mqtt = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the recorder's; else SQLite in the state folder.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A pattern of cameras, such as 'home/*'; can be given again. Else all of them."),
    ] = None,
    console: Annotated[str | None, typer.Option(help="URL of the console, to which devices lead.")] = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    metrics: Metrics = None,
    state: State = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Tell Home Assistant of the cameras by MQTT discovery: on its broker, or with --state alone on the fleet's."""
    from consumers.homeassistant.announcer import AnnouncerSettings, run_announcer
    from infra.layout import Layout
    from infra.observe import software_version
    from infra.role import run_role

    if state is None and database is None:
        raise ConfigError("expected --state DIR, or --database URL")
    if console is not None and not console.startswith(("http://", "https://")):
        raise ConfigError(f"--console: expected a URL, http://… or https://…, got {console!r}")
    # A broker that is named is somebody's own: the fleet's certificates are not for it.
    place = mqtt_place(mqtt, state if mqtt is None else None, "announcer", tls=mqtt_tls, login=mqtt_login)
    require_brokers(broker_wait, mqtt=place)
    layout = Layout((state or Path()).resolve())
    settings = AnnouncerSettings(
        database=resolve(database) if database else layout.database_url,
        mqtt=place.address,
        mqtt_tls=place.tls,
        mqtt_login=place.login,
        version=software_version(),
        only=tuple(only or ()),
        console=console,
    )
    run_role(
        "announcer",
        metrics,
        lambda registry, health, stop: run_announcer(settings, registry=registry, health=health, stop=stop),
    )
