"""Starting aiokafka's clients so that none is left half open."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

REQUEST_S = 5
"""How long Kafka may take for an answer: it bounds a start too."""
STOP_S = 3.0


async def start(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Start `client`; when that fails or is cancelled, it is stopped again.

    A start that is under way is not interrupted at once: aiokafka would forget the connection that it is making. But an
    idempotent producer starts for ever while Kafka hangs, so the wait has an end.
    """
    starting = asyncio.create_task(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await asyncio.wait([starting], timeout=2 * REQUEST_S)
        starting.cancel()
        await stop(client)
        raise


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop `client` within `STOP_S` seconds: what is not delivered by then is sent again after the next start."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await client.stop()
