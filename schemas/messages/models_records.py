"""Records of the models topic: the signed list, the gate's assessment of its rollout, and the processors' states."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from schemas.errors import ConfigError, WireError
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import LIVE_KEY, PROCESSOR_PREFIX, claimed, live, unseal
from schemas.messages.rollout import ASSESSMENT_KEY, RolloutRecords
from schemas.pointillist_pb2 import Assessment, Model, Models, ServedModel


class ModelsRecords:
    """The newest record of each key. A list without a trusted signature is rejected."""

    def __init__(self, read_trusted: Callable[[], TrustedSigners]) -> None:
        """`read_trusted` returns the trusted signers, and is called for each list, which its ConfigError rejects."""
        self._read_trusted = read_trusted
        self._newest_ms = 0
        self._waiting: bytes | None = None
        """The newest list if it was rejected: its signer may become trusted later."""
        self._rollout = RolloutRecords()
        self.refused = ""
        """The error in the newest list; the previous list stays valid then."""
        self.served: dict[str, ServedModel] = {}
        """The latest state of each processor, by its name."""
        self.gone: set[str] = set()
        """The names of the processors that have announced their end."""

    @property
    def models(self) -> Models:
        """The list in force: the newest one, with the gate's assessment applied."""
        return self._rollout.models

    @property
    def listed(self) -> Models:
        """The newest list as its last editor signed it."""
        return self._rollout.listed

    @property
    def assessment(self) -> Assessment | None:
        """The gate's assessment of the listed rollout; None without one."""
        return self._rollout.assessment

    @property
    def live(self) -> Model | None:
        """The model that processors should serve; None if each serves its own bundle."""
        return live(self.models)

    @property
    def refused_digest(self) -> str:
        """The digest of the model that the rejected newest list calls live; empty if there is none."""
        return claimed(self._waiting or b"")

    def changes_ms(self) -> list[int]:
        """Return the times at which models were published or withdrawn, Unix time in milliseconds."""
        every = (at_ms for each in self.models.published for at_ms in (each.published_ms, each.withdrawn_ms))
        return sorted({at_ms for at_ms in every if at_ms})

    def restart(self) -> None:
        """Accept older lists from now on: the topic was created again. What is in force stays until a list comes."""
        self._newest_ms = 0
        self.refused, self._waiting = "", None

    def retry(self) -> None:
        """Apply the newest list again if it was rejected."""
        if self._waiting is not None:
            self.apply_record(LIVE_KEY, self._waiting)

    def apply_record(self, key: bytes, value: bytes | None) -> None:
        """Apply one record of the topic."""
        if key == LIVE_KEY:
            try:
                models = unseal(value or b"", self._read_trusted())
            except (WireError, ConfigError) as error:
                self.refused, self._waiting = str(error), value
                return
            self.refused, self._waiting = "", None
            # An old list that is sent again takes nothing back.
            if models.changed_ms >= self._newest_ms:
                self._newest_ms = models.changed_ms
                self._rollout.listed = models
            return
        if key == ASSESSMENT_KEY:
            self._rollout.apply_assessment(value)
            return
        name = key.decode("utf-8", "replace")
        if not name.startswith(PROCESSOR_PREFIX):
            return
        name = name.removeprefix(PROCESSOR_PREFIX)
        if value is None:
            self.served.pop(name, None)
            self.gone.add(name)
            return
        self.gone.discard(name)
        try:
            self.served[name] = ServedModel.FromString(value)
        except DecodeError:
            self.served.pop(name, None)
