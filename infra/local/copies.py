"""Whether a Kafka has all copies and controllers: only then may the next node be stopped, or its disk taken."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from schemas.errors import BrokerError
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import STOP_S, leave, start

_ANSWER_S: Final = 3.0
_AGAIN_S: Final = 0.2


async def missing(address: KafkaAddress) -> str:
    """What the Kafka at `address` lacks, of copies of partitions, its own too, or of controllers; empty if nothing.

    Where nodes are controllers too, each of them should be. Raises what aiokafka raises when Kafka does not answer.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    from infra.local.kafka_voters import voters

    admin = AIOKafkaAdminClient(**kafka_options(address), request_timeout_ms=round(1000 * _ANSWER_S))
    try:
        async with asyncio.timeout(_ANSWER_S):
            await start(admin)
            topics = await admin.describe_topics()
            nodes = {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
            voting = await voters(admin)
    finally:
        await leave(admin.close, deadline_s=STOP_S)
    behind = sorted(
        f"{topic['topic']}-{each['partition']}"
        for topic in topics
        for each in topic["partitions"]
        if set(each["isr"]) != set(each["replicas"])
    )
    if behind:
        return f"{len(behind)} partitions lack one, the first is {behind[0]}"
    silent = sorted(nodes - voting) if nodes & voting else []
    return f"the controller of node {silent[0]} does not vote yet" if silent else ""


async def await_copies(address: KafkaAddress, deadline_s: float) -> None:
    """Return when nothing is missing; BrokerError when that is not so within `deadline_s` seconds."""
    from aiokafka.errors import KafkaError

    end = time.monotonic() + deadline_s
    while True:
        try:
            complaint = await missing(address)
        except (KafkaError, OSError, TimeoutError) as error:
            complaint = f"no answer, {type(error).__name__}"
        if not complaint:
            return
        if time.monotonic() >= end:
            raise BrokerError(
                f"expected Kafka at {address} to have all copies of each partition within {deadline_s:g} s: {complaint}"
            )
        await asyncio.sleep(_AGAIN_S)
