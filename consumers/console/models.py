"""Which models were published and what each processor serves, read from Kafka as it changes."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer
from google.protobuf.message import DecodeError

from schemas.errors import WireError
from schemas.limits import MAX_BROKER_BYTES
from schemas.models import LIVE_KEY, PROCESSOR_PREFIX, live, unseal
from schemas.pointillist_pb2 import Model, Models, ServedModel
from schemas.signers import TrustedSigners
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start

_WAIT_MS: Final = 1_000

log = structlog.get_logger()


class ModelsWatch:
    """The topic of models, read from its beginning and on; what no trusted signer made is not believed."""

    def __init__(self, kafka: KafkaAddress, topic: str, trusted: TrustedSigners) -> None:
        self._kafka = kafka
        self._topic = topic
        self._trusted = trusted
        self.models = Models()
        self.refused = ""
        """What is wrong with the newest list; then the one before it counts."""
        self.served: dict[str, ServedModel] = {}

    @property
    def live(self) -> Model | None:
        """The model that processors are to serve; None where each serves its own bundle."""
        return live(self.models)

    async def run(self) -> None:
        """Read until cancelled."""
        backoff = Backoff()
        while True:
            consumer = AIOKafkaConsumer(
                self._topic,
                **kafka_options(self._kafka),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=MAX_BROKER_BYTES,
                request_timeout_ms=REQUEST_S * 1000,
            )
            try:
                await start(consumer)
                backoff.reset()
                while True:
                    for records in (await consumer.getmany(timeout_ms=_WAIT_MS)).values():
                        for record in records:
                            self.take(record.key or b"", record.value)
            except Exception as error:  # whatever a broker may raise while it is away
                log.warning("models_not_read", error=str(error) or type(error).__name__)
            finally:
                with suppress(Exception):
                    await leave(consumer.stop, deadline_s=STOP_S)
            await backoff.wait()

    def take(self, key: bytes, value: bytes | None) -> None:
        """One record of the topic."""
        if key == LIVE_KEY:
            try:
                models = unseal(value or b"", self._trusted)
            except WireError as error:
                self.refused = str(error)
                return
            self.refused = ""
            if models.changed_ms >= self.models.changed_ms:
                self.models = models
            return
        name = key.decode("utf-8", "replace")
        if not name.startswith(PROCESSOR_PREFIX):
            return
        name = name.removeprefix(PROCESSOR_PREFIX)
        try:
            if value is None:
                self.served.pop(name, None)
            else:
                self.served[name] = ServedModel.FromString(value)
        except DecodeError:
            self.served.pop(name, None)
