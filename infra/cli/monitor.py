"""`pointillist monitor`: metrics of brokers, machine, GPUs, and of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import (
    BROKER_WAIT_S,
    BrokerWait,
    Kafka,
    KafkaLogin,
    KafkaTls,
    Mqtt,
    MqttLogin,
    MqttTls,
    kafka_place,
    mqtt_place,
    require_brokers,
)
from infra.cli.passwords import resolve
from infra.cli.roles import Metrics, State, role_keys
from schemas.errors import ConfigError


@app.command()
def monitor(
    mqtt: Mqtt = None,
    kafka: Kafka = None,
    database: Annotated[str | None, typer.Option(help="SQLAlchemy URL; else SQLite in the state folder.")] = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    metrics: Metrics = None,
    state: State = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Serve metrics of what has none of its own: Kafka, mosquitto, this machine, its GPUs, the audit."""
    from infra.layout import Layout
    from infra.monitor.service import MonitorSettings, run_monitor
    from infra.role import run_role

    if state is None and database is None:
        raise ConfigError("expected --state DIR, or --database URL")
    place = mqtt_place(mqtt, state, "monitor", tls=mqtt_tls, login=mqtt_login)
    bootstrap = kafka_place(kafka, state, "monitor", tls=kafka_tls, login=kafka_login)
    require_brokers(broker_wait, mqtt=place, kafka=bootstrap)
    layout = Layout((state or Path()).resolve())
    settings = MonitorSettings(
        kafka=bootstrap,
        mqtt=place.address,
        mqtt_tls=place.tls,
        mqtt_login=place.login,
        database=resolve(database) if database else layout.database_url,
        folder=layout.folder,
    )
    keys = role_keys(state, "auditor")
    run_role(
        "monitor",
        metrics,
        lambda registry, health, stop: run_monitor(settings, keys, registry=registry, health=health, stop=stop),
    )
