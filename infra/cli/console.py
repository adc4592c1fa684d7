"""`pointillist console`: the pages for people."""

from __future__ import annotations

import re
from functools import partial
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
from infra.cli.code import AllowCode
from infra.cli.passwords import resolve
from infra.cli.roles import BehindProxy, Metrics, ServedAs, State, generations_file, role_keys
from infra.cli.signer import Trust, trust_file
from schemas.errors import ConfigError


@app.command()
def console(
    http: Annotated[str, typer.Option(help="host:port of the pages; others than this machine need --users.")],
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    state: State = None,
    database: Annotated[str | None, typer.Option(help="The recorder's, as an SQLAlchemy URL; only read.")] = None,
    quarantine: Annotated[str | None, typer.Option(help="The recorder's: folder or fsspec URL; only read.")] = None,
    store: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the console's own; else SQLite in the state folder.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="Who may log in, as `pointillist user` writes it; else users in --state.")
    ] = None,
    served_as: ServedAs = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    http_tls: Annotated[Path | None, typer.Option(help="Serve by HTTPS: a folder with tls.crt and tls.key.")] = None,
    behind_proxy: BehindProxy = None,
    trust: Trust = None,
    jobs: Annotated[
        Path | None,
        typer.Option(
            help="Let admins run repairs, one at a time: a folder with clean.npz and bundles/NAME, which the jobs are "
            "kept in."
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Beside --jobs: the bundle that processors serve where none is published.")
    ] = None,
    signer: Annotated[
        Path | None,
        typer.Option(help="Beside --jobs: let admins publish bundles and roll back, by jobs that sign with this key."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Beside --signer: where bundles are published to; else in the state folder.")
    ] = None,
    admin_tls: Annotated[
        Path | None, typer.Option(help="Beside --signer: how those jobs connect to Kafka; else as --state says.")
    ] = None,
    admin_login: Annotated[Path | None, typer.Option(help="Beside --signer: a file with user:password.")] = None,
    prometheus: Annotated[
        str | None, typer.Option(help="URL of the Prometheus that the System page draws from; else our own history.")
    ] = None,
    allow_code: AllowCode = False,
    metrics: Metrics = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Show the fleet to people: pictures, history, alerts; and tell cameras."""
    from pydantic import ValidationError

    from consumers.console.role import run_console
    from consumers.console.settings import ConsoleSettings, MqttBroker
    from consumers.settings import RecorderSettings
    from infra.cli.console_jobs import job_settings, launcher
    from infra.cli.up import first_problem
    from infra.generations import following
    from infra.layout import Layout
    from infra.prometheus.runbooks import PAGE as RUNBOOKS
    from infra.role import address, run_role
    from infra.up.system_state import role_states

    if state is None and (database is None or quarantine is None or store is None):
        raise ConfigError("expected --state DIR, or --database URL, --quarantine URL and --store URL")
    layout = Layout((state or Path(".pointillist")).resolve())
    bootstrap = kafka_place(kafka, state, "console", tls=kafka_tls, login=kafka_login)
    broker = None
    if mqtt is not None or state is not None:
        place = mqtt_place(mqtt, state, "console", tls=mqtt_tls, login=mqtt_login)
        broker = MqttBroker(host=place.address[0], port=place.address[1], tls=place.tls, login=place.login)
    if users is None and state is not None and layout.users.is_file():
        users = layout.users
    if prometheus is not None and not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", prometheus):
        raise ConfigError(f"--prometheus: expected http://host:port, got {prometheus.rpartition('@')[2][:80]!r}")
    wanted = job_settings(
        jobs, bundle, signer, models, state=state, trust=trust, kafka=kafka, admin_tls=admin_tls,
        admin_login=admin_login,
    )  # fmt: skip
    require_brokers(broker_wait, kafka=bootstrap)
    try:
        recorder = RecorderSettings(
            kafka=bootstrap,
            database=resolve(database) if database else layout.database_url,
            quarantine=quarantine or str(layout.quarantine),
        )
        settings = ConsoleSettings(
            recorder=recorder,
            store=resolve(store) if store else layout.console_url,
            listen=address(http),
            tls=http_tls,
            behind_proxy=behind_proxy,
            served_as=tuple(served_as or ()),
            users=users,
            trust=trust_file(trust, state),
            mqtt=broker,
            jobs=wanted,
            prometheus=prometheus,
            runbooks=RUNBOOKS,
        )
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None
    read_roles = partial(role_states, layout) if (layout.folder / "roles.json").is_file() else None
    keys = role_keys(state, "console")
    launch = launcher()
    run_role(
        "console",
        metrics,
        lambda registry, health, stop: following(
            generations_file(state),
            keys,
            run_console(
                settings, keys, registry=registry, health=health, stop=stop, launch=launch, read_roles=read_roles
            ),
        ),
    )
