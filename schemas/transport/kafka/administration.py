"""Administrative work on a Kafka that may have just started: repeated until it succeeds or a deadline ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError

from schemas.errors import BrokerError, error_text
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import REQUEST_S

Result = TypeVar("Result")


async def administer(
    address: KafkaAddress,
    what: str,
    work: Callable[[Admin], Awaitable[Result]],
    deadline_s: float,
    *,
    request_s: float = REQUEST_S,
) -> Result:
    """Return the result of `work` with a client of its own, repeated with `Backoff` after each KafkaError or OSError.

    Raises BrokerError after the first attempt that fails later than `deadline_s` seconds after the call. `what`
    completes "expected it to".
    """
    backoff = Backoff()
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        try:
            async with Admin(address, request_s=request_s) as admin:
                return await work(admin)
        except (KafkaError, OSError) as error:
            if loop.time() >= end:
                raise BrokerError(
                    f"Kafka at {address}: expected it to {what} within {deadline_s:g} s, got {error_text(error)}. "
                    "Check its log."
                ) from error
        await backoff.wait()
