"""`pointillist topics`: creates Kafka topics and sets roles' rights. `pointillist replicas`: checks replication."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from infra.cli import app
from infra.cli.access import CONNECT_TIMEOUT_S, ConnectTimeout, KafkaOptions, require_brokers
from infra.cli.shared_options import with_shared_options
from infra.local.topics import LEAST_RETENTION_S, MOST_RETENTION_S, RETENTION_S

_USERS: Final = "bridge, processor, recorder, console, audit and monitor"


@app.command()
@with_shared_options
def topics(
    *,
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
    access: KafkaOptions,
    connect_timeout_s: ConnectTimeout = CONNECT_TIMEOUT_S,
) -> None:
    """Create the missing topics; existing ones stay as they are, except for --retention-s."""
    import asyncio

    from infra.local.topics import pointillist_topics, prepare_topics, usual_replication
    from infra.pki.role_generations import role_generations

    place = access.place
    require_brokers(connect_timeout_s, kafka=place)
    copies = replication or asyncio.run(usual_replication(place))
    generations = None
    if rights:
        own = None if isinstance(place, str) else place.tls.certificate
        generations = role_generations(own.parent) if own is not None else {}
    specs = pointillist_topics(partitions, copies, retention_s)
    asyncio.run(prepare_topics(place, specs, retention_s, generations))
    typer.echo(f"all topics exist; copies of each partition of new ones: {copies}")


@app.command()
@with_shared_options
def replicas(
    *,
    wait: Annotated[float, typer.Option(help="Maximum seconds to wait until all replicas are in sync.", min=0)] = 0.0,
    access: KafkaOptions,
) -> None:
    """Check that every partition has all its replicas, before you stop a Kafka node. Exit status 2 if one has not."""
    import asyncio

    from infra.local.replicas import await_replicas
    from infra.preflight.brokers import quiet_kafka

    place = access.place
    with quiet_kafka():
        asyncio.run(await_replicas(place, wait))
    typer.echo("every partition has all its replicas")
