"""Starting aiokafka's clients so that none is left half open."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

REQUEST_S = 5
"""How long Kafka may take for an answer: it bounds a start too."""


async def start(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Start `client`; when that fails or is cancelled, it is stopped again.

    A start that is under way is not interrupted: aiokafka would forget the connection that it is making.
    """
    starting = asyncio.create_task(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await asyncio.wait([starting])
        await client.stop()
        raise
