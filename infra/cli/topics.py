"""`pointillist topics`: create the Kafka topics."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli import app


@app.command()
def topics(
    kafka: Annotated[str, typer.Option(help="Kafka bootstrap server as host:port.")],
    partitions: Annotated[int, typer.Option(help="Partitions of the topics keyed by camera.", min=1)] = 6,
    replication: Annotated[int, typer.Option(help="Copies of each partition.", min=1)] = 1,
) -> None:
    """Create the topics that do not exist yet; those that do stay as they are."""
    import asyncio

    from infra.local.topics import create_topics, pointillist_topics
    from infra.role import address

    address(kafka)
    asyncio.run(create_topics(kafka, pointillist_topics(partitions, replication)))
