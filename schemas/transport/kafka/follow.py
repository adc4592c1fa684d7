"""A topic that is read until cancelled, whatever happens to Kafka: for states and statements of other roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog

from schemas.errors import error_text
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader

_WAIT_S = 1.0
_LOGGED_EVERY = 10

log = structlog.get_logger()


async def follow(
    address: KafkaAddress,
    topic: str,
    apply: Callable[[bytes, bytes | None], None],
    *,
    begin: Literal["earliest", "latest"] = "earliest",
    caught_up: Callable[[], None] | None = None,
) -> None:
    """Call `apply` with key and value of each record of a topic until cancelled; None is the value of a tombstone.

    `caught_up` is called after each fetch, if all records that Kafka held at that time have been applied. After an
    error of Kafka or of `apply`, the topic is read again from `begin`, with delays by `Backoff`.
    """
    backoff = Backoff()
    while True:
        try:
            async with Reader(address, topic, begin=begin) as reader:
                while True:
                    for records in (await reader.fetch(wait_s=_WAIT_S)).values():
                        for record in records:
                            apply(record.key or b"", record.value)
                    if caught_up is not None and reader.is_at_end():
                        caught_up()
                    backoff.reset()
        except Exception as error:  # any error of a broker that is unreachable
            if backoff.failures % _LOGGED_EVERY == 0:
                log.warning("topic_not_read", topic=topic, error=error_text(error))
        await backoff.wait()
