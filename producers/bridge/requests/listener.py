"""The server's requests to cameras, read from Kafka's events topic and forwarded as signed MQTT messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka.structs import ConsumerRecord

from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader

log = structlog.get_logger()

LOG_AFTER: Final = 3
FETCH_WAIT_S: Final = 2.0
"""Longest wait of a fetch in Kafka for a request, which is answered at once when one comes."""

Forward = Callable[[Sequence[ConsumerRecord], float], None]
"""A function that receives records and the monotonic time, and skips records of other types."""


class Requests:
    """The reader of new events; it passes them to all `forwarders`."""

    def __init__(self, bootstrap: KafkaAddress, client: str, forwarders: Sequence[Forward]) -> None:
        self._bootstrap = bootstrap
        self._client = client
        self._forwarders = forwarders

    async def run(self) -> None:
        """Forward requests until cancelled. Wait while Kafka is unavailable."""
        backoff = Backoff()
        reader = Reader(
            self._bootstrap,
            KafkaTopic.EVENTS.value,
            name=f"{self._client}-requests",
            begin="latest",
            fetch_wait_s=FETCH_WAIT_S,
        )
        while True:
            try:
                await reader.open()
                while True:
                    records = await reader.fetch(wait_s=FETCH_WAIT_S)  # not longer: it passes stalls between fetches
                    backoff.reset()
                    for part in records.values():
                        for forward in self._forwarders:
                            forward(part, time.monotonic())
            except Exception as error:
                # Any error of the client library: forwarding frames must continue without requests.
                if backoff.failures + 1 == LOG_AFTER:
                    log.warning("requests_not_read", error=repr(error)[:300])
            finally:
                await reader.close()
            await backoff.wait()
