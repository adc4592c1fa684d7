"""The life of an aiokafka client: a start and an end that leave no connection open.

aiokafka is not imported here: a machine without it can load this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from schemas.transport.kafka.internals import abort_bootstrap, close_connections, sender_task
from schemas.transport.kafka.nodes import leave_missing_nodes

REQUEST_S: Final = 5
"""Time limit of a request to Kafka, unless a caller waits longer on purpose; it bounds a consumer's start too."""
STOP_S: Final = 3.0
"""Time limit of a client's stop: records that are not delivered by then are sent again after the next start."""
_AGAIN_S: Final = 0.5


class Client(Protocol):
    """An aiokafka consumer, producer or administrator."""

    async def start(self) -> None:
        """Connect."""


async def start_client(client: Client) -> None:
    """Start `client`. The caller must stop it in any case, also after a failure or a cancellation.

    The client leaves a node that the other nodes miss. A failed start leaves no connection open.
    """
    leave_missing_nodes(client)
    try:
        await client.start()
    except BaseException as error:
        abort_bootstrap(error)
        raise


async def close_clients(*stops: Callable[[], Awaitable[None]], deadline_s: float) -> bool:
    """Stop consumers and administrators, each within `deadline_s` seconds, and return whether all stopped in time.

    An error or a timeout of one stop does not keep the others from running. Raises CancelledError if the calling task
    is cancelled, and only then. aiokafka itself swallows a cancellation during a stop, and raises the cancellations of
    its own tasks.
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


async def stop_producer(producer: Any, deadline_s: float) -> None:
    """Stop an aiokafka producer after it has delivered everything, or without that after `deadline_s` seconds."""
    try:
        async with asyncio.timeout(deadline_s):
            await producer.stop()
    except TimeoutError:
        await abort_producer(producer, deadline_s)


async def abort_producer(producer: Any, deadline_s: float) -> None:
    """End an aiokafka producer without its undelivered records; its own `stop` would wait for them without limit.

    Its connections get `deadline_s` seconds to close.
    """
    sender = sender_task(producer)
    if sender is not None:
        sender.cancel()
    # aiokafka closes all connections before it waits for any: an error or a timeout here leaves none open.
    with suppress(Exception):
        async with asyncio.timeout(deadline_s):
            await producer.client.close()
    while sender is not None and not sender.done():
        # The first cancellation waits for requests in flight; the next one ends them.
        await asyncio.wait([sender], timeout=_AGAIN_S)
        sender.cancel()
    close_connections(producer)
