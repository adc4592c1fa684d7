"""Whether each partition of a Kafka has all its copies: only then may the next node be stopped, or its disk taken."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from schemas.errors import BrokerError
from schemas.runtime.access import KafkaAddress, kafka_options
from schemas.runtime.kafka_clients import STOP_S, leave, start

_ANSWER_S: Final = 3.0
_AGAIN_S: Final = 0.2


async def behind(address: KafkaAddress) -> list[str]:
    """The partitions, as TOPIC-NUMBER, of which some copy is missing or behind, Kafka's own topics included.

    Raises what aiokafka raises when the Kafka at `address` does not answer. It shows what the client may see.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(**kafka_options(address), request_timeout_ms=round(1000 * _ANSWER_S))
    try:
        async with asyncio.timeout(_ANSWER_S):
            await start(admin)
            topics = await admin.describe_topics()
    finally:
        await leave(admin.close, deadline_s=STOP_S)
    return sorted(
        f"{topic['topic']}-{each['partition']}"
        for topic in topics
        for each in topic["partitions"]
        if set(each["isr"]) != set(each["replicas"])
    )


async def await_copies(address: KafkaAddress, deadline_s: float) -> None:
    """Return when every partition has all its copies; BrokerError when that is not so within `deadline_s` seconds."""
    from aiokafka.errors import KafkaError

    end = time.monotonic() + deadline_s
    while True:
        try:
            partitions = await behind(address)
            complaint = f"{len(partitions)} partitions lack one, the first is {partitions[0]}" if partitions else ""
        except (KafkaError, OSError, TimeoutError) as error:
            complaint = f"no answer: {type(error).__name__}"
        if not complaint:
            return
        if time.monotonic() >= end:
            raise BrokerError(
                f"expected Kafka at {address} to have all copies of each partition within {deadline_s:g} s: {complaint}"
            )
        await asyncio.sleep(_AGAIN_S)
