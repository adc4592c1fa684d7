"""Replication state of a Kafka: with all copies and controllers present, the next node may be stopped."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from schemas.errors import BrokerError
from schemas.transport.access import KafkaAddress

_ANSWER_S: Final = 3.0
_AGAIN_S: Final = 0.2


async def missing(address: KafkaAddress) -> str:
    """Describe the copies of partitions and the controllers that the Kafka at `address` lacks; empty if none.

    If nodes are controllers too, each of them should be. Raises what aiokafka raises when Kafka does not answer.
    """
    from infra.local.kafka_voters import voters
    from schemas.transport.kafka.admin import Admin

    async with Admin(address, _ANSWER_S) as admin, asyncio.timeout(_ANSWER_S):
        partitions = await admin.partitions()
        nodes = (await admin.cluster()).nodes
        voting = await voters(admin)
    behind = sorted(
        f"{each.place.topic}-{each.place.partition}" for each in partitions if each.in_sync != each.replicas
    )
    if behind:
        return f"{len(behind)} partitions lack one, the first is {behind[0]}"
    silent = sorted(nodes - voting) if nodes & voting else []
    return f"the controller of node {silent[0]} does not vote yet" if silent else ""


async def await_replicas(address: KafkaAddress, deadline_s: float) -> None:
    """Return when nothing is missing; BrokerError when something still is after `deadline_s` seconds."""
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
                f"Kafka at {address}: expected all copies of each partition within {deadline_s:g} s, got "
                f"{complaint}. Check Kafka's nodes."
            )
        await asyncio.sleep(_AGAIN_S)
