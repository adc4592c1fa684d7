"""`pointillist topics`: creates Kafka topics and sets roles' rights. `pointillist replicas`: checks replication."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import (
    CONNECT_TIMEOUT_S,
    DEFAULT_STATE,
    ConnectTimeout,
    Kafka,
    KafkaLogin,
    KafkaTls,
    kafka_place,
    require_brokers,
)


@app.command()
def topics(
    kafka: Annotated[str, typer.Option(help="Kafka bootstrap servers as host:port,host:port.")],
    partitions: Annotated[int, typer.Option(help="Partitions of the topics keyed by camera.", min=1)] = 6,
    replication: Annotated[int, typer.Option(help="Copies of each partition.", min=1)] = 1,
    rights: Annotated[
        bool, typer.Option("--rights", help="Give the users bridge, processor, recorder and audit their rights too.")
    ] = False,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    state: Annotated[Path | None, typer.Option(help="A state folder, whose `admin` sets them.")] = None,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Create the missing topics; existing ones stay as they are."""
    import asyncio

    from infra.local.topics import create_topics, pointillist_topics
    from infra.pki.kafka_rights import grant, withdraw
    from infra.pki.role_generations import role_generations

    place = kafka_place(kafka, state, "admin", tls=kafka_tls, login=kafka_login)
    require_brokers(connect_timeout_s, kafka=place)
    asyncio.run(create_topics(place, pointillist_topics(partitions, replication)))
    if rights:
        own = None if isinstance(place, str) else place.tls.certificate
        generations = role_generations(own.parent) if own is not None else {}
        asyncio.run(grant(place, generations=generations))
        asyncio.run(withdraw(place, generations))


@app.command()
def replicas(
    kafka: Kafka = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until all replicas are present.", min=0)] = 0.0,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    state: Annotated[
        Path | None,
        typer.Option(help="State folder of a running system; by default .pointillist, unless --kafka is given."),
    ] = None,
) -> None:
    """Check that each partition has all its replicas, before the next Kafka node is stopped. Exit status 2 when not."""
    import asyncio

    from infra.local.replicas import await_replicas
    from infra.preflight.brokers import quiet_kafka

    if kafka is None and state is None:
        state = DEFAULT_STATE
    place = kafka_place(kafka, state, "admin", tls=kafka_tls, login=kafka_login)
    with quiet_kafka():
        asyncio.run(await_replicas(place, wait))
    typer.echo("every partition has all its replicas")
