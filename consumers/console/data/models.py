"""The published models and the served model of each processor, read from Kafka continuously."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from schemas.errors import WireError
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import LIVE_KEY, PROCESSOR_PREFIX, live, unseal
from schemas.messages.rollout import ASSESSMENT_KEY, RolloutRecords
from schemas.pointillist_pb2 import Assessment, Model, Models, ServedModel
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.follow import follow


class ModelsWatch:
    """The models topic, read from its beginning. Records without a trusted signature are rejected."""

    def __init__(self, kafka: KafkaAddress, topic: str, trusted: TrustedSigners) -> None:
        self._kafka = kafka
        self._topic = topic
        self._trusted = trusted
        self._records = RolloutRecords()
        self.refused = ""
        """The error in the newest list; the previous list stays valid then."""
        self.served: dict[str, ServedModel] = {}

    @property
    def models(self) -> Models:
        """The list in force: the newest one, with the gate's assessment applied."""
        return self._records.models

    @property
    def listed(self) -> Models:
        """The list as its last editor signed it."""
        return self._records.listed

    @property
    def assessment(self) -> Assessment | None:
        """The gate's assessment of the listed rollout; None without one."""
        return self._records.assessment

    @property
    def live(self) -> Model | None:
        """The model that processors should serve; None if each serves its own bundle."""
        return live(self.models)

    def changes_ms(self) -> list[int]:
        """Return the times at which models were published or withdrawn, Unix time in milliseconds."""
        every = (at_ms for each in self.models.published for at_ms in (each.published_ms, each.withdrawn_ms))
        return sorted({at_ms for at_ms in every if at_ms})

    async def run(self) -> None:
        """Read until cancelled."""
        await follow(self._kafka, self._topic, self.take)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Apply one record of the topic."""
        if key == LIVE_KEY:
            try:
                models = unseal(value or b"", self._trusted)
            except WireError as error:
                self.refused = str(error)
                return
            self.refused = ""
            if models.changed_ms >= self._records.listed.changed_ms:
                self._records.listed = models
            return
        if key == ASSESSMENT_KEY:
            self._records.take(value)
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
