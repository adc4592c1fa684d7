"""Starting aiokafka's clients so that none is left half open."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.runtime import kafka_clients

REQUEST_S = 5
"""How long Kafka may take for an answer: it bounds a consumer's start too."""
STOP_S = 3.0


async def start(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Start `client`; when that fails or is cancelled, it is stopped again."""
    try:
        await kafka_clients.start(client)
    except BaseException:
        await stop(client)
        raise


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop `client` within `STOP_S` seconds: what is not delivered by then is sent again after the next start."""
    if isinstance(client, AIOKafkaProducer):
        await kafka_clients.stop(client, STOP_S)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await client.stop()
