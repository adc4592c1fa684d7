"""Which models were published and what each processor serves, read from Kafka as it changes."""

from __future__ import annotations

from typing import Final

import structlog
from google.protobuf.message import DecodeError

from schemas.errors import WireError
from schemas.models import LIVE_KEY, PROCESSOR_PREFIX, live, unseal
from schemas.pointillist_pb2 import Model, Models, ServedModel
from schemas.signers import TrustedSigners
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader

_WAIT_S: Final = 1.0

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
            try:
                async with Reader(self._kafka, self._topic) as reader:
                    backoff.reset()
                    while True:
                        for records in (await reader.fetch(wait_s=_WAIT_S)).values():
                            for record in records:
                                self.take(record.key or b"", record.value)
            except Exception as error:  # whatever a broker may raise while it is away
                log.warning("models_not_read", error=str(error) or type(error).__name__)
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
