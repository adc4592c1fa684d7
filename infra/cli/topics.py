"""`pointillist topics`: creates Kafka topics and sets roles' rights. `pointillist replicas`: checks replication."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli import app
from infra.cli.access import (
    CONNECT_TIMEOUT_S,
    DEFAULT_STATE,
    ConnectTimeout,
    Kafka,
    KafkaLogin,
    KafkaState,
    KafkaTls,
    kafka_place,
    require_brokers,
)
from infra.local.topics import LEAST_RETENTION_S, MOST_RETENTION_S, RETENTION_S

if TYPE_CHECKING:
    from schemas.transport.access import KafkaAddress

_USERS: Final = "bridge, processor, recorder, console, audit and monitor"


@app.command()
def topics(
    kafka: Kafka = None,
    partitions: Annotated[
        int, typer.Option(help="Number of partitions of the topics that are keyed by camera.", min=1)
    ] = 6,
    replication: Annotated[
        int | None,
        typer.Option(help="Number of copies of each partition. Default: 1 if Kafka has one node, else 3.", min=1),
    ] = None,
    retention_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds for which topics keep their records, read or not. Sets it for existing topics too. Default: "
            f"{RETENTION_S:g} for new topics; existing ones keep theirs.",
            min=LEAST_RETENTION_S,
            max=MOST_RETENTION_S,
        ),
    ] = None,
    rights: Annotated[bool, typer.Option("--rights", help=f"Also grant the users {_USERS} their rights.")] = False,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    state: KafkaState = None,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Create the missing topics; existing ones stay as they are, except for --retention-s."""
    import asyncio

    from infra.local.topics import create_topics, pointillist_topics, set_retention, usual_replication
    from infra.pki.kafka_rights import grant, withdraw
    from infra.pki.role_generations import role_generations

    place = _place(kafka, state, kafka_tls, kafka_login)
    require_brokers(connect_timeout_s, kafka=place)
    copies = replication or asyncio.run(usual_replication(place))
    asyncio.run(create_topics(place, pointillist_topics(partitions, copies, retention_s)))
    if retention_s is not None:
        asyncio.run(set_retention(place, retention_s))
    typer.echo(f"all topics exist; copies of each partition of new ones: {copies}")
    if rights:
        own = None if isinstance(place, str) else place.tls.certificate
        generations = role_generations(own.parent) if own is not None else {}
        asyncio.run(grant(place, generations=generations))
        asyncio.run(withdraw(place, generations))


@app.command()
def replicas(
    kafka: Kafka = None,
    wait: Annotated[float, typer.Option(help="Maximum seconds to wait until all replicas are in sync.", min=0)] = 0.0,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    state: KafkaState = None,
) -> None:
    """Check that every partition has all its replicas, before you stop a Kafka node. Exit status 2 if one has not."""
    import asyncio

    from infra.local.replicas import await_replicas
    from infra.preflight.brokers import quiet_kafka

    place = _place(kafka, state, kafka_tls, kafka_login)
    with quiet_kafka():
        asyncio.run(await_replicas(place, wait))
    typer.echo("every partition has all its replicas")


def _place(kafka: str | None, state: Path | None, tls: Path | None, login: Path | None) -> KafkaAddress:
    """Return Kafka for `admin`, by default that of the usual state folder."""
    if kafka is None and state is None:
        state = DEFAULT_STATE
    return kafka_place(kafka, state, "admin", tls=tls, login=login)
