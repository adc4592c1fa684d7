"""Starting and ending the clients of Kafka so that no connection outlives them.

Every role does this with aiokafka, which is not imported here: the contract loads no client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from traceback import walk_tb
from typing import Any, Final, Protocol

from schemas.runtime.kafka_nodes import leave_missing_nodes

REQUEST_S: Final = 5
"""How long Kafka may take for an answer, where nobody waits longer on purpose: it bounds a consumer's start too."""
STOP_S: Final = 3.0
"""How long a client that ends may take: what is not delivered by then is sent again after the next start."""
_AGAIN_S: Final = 0.5


class Client(Protocol):
    """An aiokafka consumer, producer or administrator's client."""

    async def start(self) -> None:
        """Connect."""


async def start(client: Client) -> None:
    """Start `client`. The caller stops it whatever happens, also when this fails or is interrupted.

    The connection over which aiokafka asks for the first metadata is known to nobody when that is interrupted, such as
    by a time limit while Kafka hangs: stopping the client does not close it. A node that the others miss is left.
    """
    leave_missing_nodes(client)
    try:
        await client.start()
    except BaseException as error:
        for frame, _ in walk_tb(error.__traceback__):
            connection = frame.f_locals.get("bootstrap_conn")
            if connection is not None:
                # By TLS, to close is to wait for the other end's word: the loop may end before that comes.
                if connection._writer is not None:
                    connection._writer.transport.abort()
                connection.close()
        raise


async def leave(*stops: Callable[[], Awaitable[None]], deadline_s: float) -> bool:
    """Stop consumers and administrators, each within `deadline_s` seconds; what breaks or lasts in that ends nothing.

    False when one of them broke or lasted. Raises CancelledError when the calling task is to end, and only then:
    aiokafka swallows the cancellation that reaches a client while it stops, and a task that makes clients for ever
    would go on; and it lets out the cancellations of its own tasks, by which nobody asked the caller to end.
    """
    task = asyncio.current_task()
    whole = True
    for each in stops:
        try:
            async with asyncio.timeout(deadline_s):
                await each()
        except (Exception, asyncio.CancelledError):
            whole = False
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return whole


async def stop(producer: Any, deadline_s: float) -> None:
    """Stop an aiokafka producer when Kafka has all that was sent, or without that after `deadline_s` seconds."""
    try:
        async with asyncio.timeout(deadline_s):
            await producer.stop()
    except TimeoutError:
        await end(producer, deadline_s)


async def end(producer: Any, deadline_s: float) -> None:
    """End an aiokafka producer without waiting for what it has not delivered, as its own `stop` would for ever.

    `deadline_s` seconds at most are given to the connections to close.
    """
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    # What breaks or lasts here is closed all the same: aiokafka waits for no connection before it has closed all.
    with suppress(Exception):
        async with asyncio.timeout(deadline_s):
            await producer.client.close()
    while sender is not None and not sender.done():
        # The first cancel waits for requests in flight; the next one ends that as well.
        await asyncio.wait([sender], timeout=_AGAIN_S)
        sender.cancel()
    # A request that was waiting for a connection may have made one since.
    for connection in producer.client._conns.values():
        connection.close()
    producer._closed = True
