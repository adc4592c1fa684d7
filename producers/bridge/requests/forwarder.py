"""The server's signed requests to cameras, forwarded unchanged from Kafka's events to MQTT.

Every bridge forwards every request, and a camera applies each once. Nothing is stored: the server repeats a request
while it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog
from aiokafka import ConsumerRecord

from schemas.clock import unix_ms
from schemas.errors import MalformedError, WireError
from schemas.identity import CameraId, camera_id_on_wire
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import open_message
from schemas.pointillist_pb2 import KeyRequest, ProbeRequest, Refusal
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic

log = structlog.get_logger()

MAX_REQUEST_BYTES: Final = 64
MAX_REFUSAL_BYTES: Final = 1024
KEY_REQUESTS_APART_S: Final = 1.0
PROBE_REQUESTS_APART_S: Final = 0.5
REFUSALS_APART_S: Final = 0.5

Request = TypeVar("Request", KeyRequest, ProbeRequest, Refusal)
Publish = Callable[[str, bytes], None]
"""A function that receives the MQTT topic and the signed payload."""
Refuse = Callable[[str], None]
"""A function that receives the kind of each request that is malformed, forged or out of its range."""


@dataclass(frozen=True)
class RequestForwarder(Generic[Request]):
    """The forwarder of one kind of request. An invalid request does not stop later ones."""

    kind: type[Request]
    channel: Channel
    throttle: Throttle[tuple[CameraId, Hashable]]
    """The bound on what replays cost a camera."""
    keys: KeyRing
    publish: Publish
    refuse: Refuse
    same: Callable[[Request], Hashable]
    """A function that returns equal values for requests of a camera that share one throttle."""
    check: Callable[[Request], None] = lambda _: None
    """A function that raises `WireError` for a request out of its range."""
    most_bytes: int = MAX_REQUEST_BYTES

    def forward(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Forward the requests of this kind among `records`; `now_s` is monotonic."""
        ce_type = self.kind.DESCRIPTOR.full_name.encode()
        for record in records:
            if ("ce_type", ce_type) not in record.headers or record.key is None:
                continue
            try:
                camera_id, value = _camera(record.key), record.value or b""
                request = open_message(self.kind, camera_id, value[: self.most_bytes + 1], self.keys)
                self.check(request)
            except WireError as error:
                log.warning("request_rejected", kind=self.kind.__name__, error=str(error))
                self.refuse(self.kind.__name__)
                continue
            if self.throttle.try_acquire((camera_id, self.same(request)), now_s):
                self.publish(mqtt_topic(camera_id, self.channel), value)


def key_requests(keys: KeyRing, publish: Publish, refuse: Refuse) -> RequestForwarder[KeyRequest]:
    """Return the forwarder of requests for new key frames.

    A camera obeys the first; the others name a key frame that is no longer its last. Processors repeat a request while
    the key frame is missing.
    """
    return RequestForwarder(
        KeyRequest, Channel.KEY_REQUEST, Throttle(KEY_REQUESTS_APART_S), keys, publish, refuse,
        same=lambda request: (request.boot_id, request.seq),
    )  # fmt: skip


def probe_requests(
    keys: KeyRing, publish: Publish, refuse: Refuse, clock_ms: Callable[[], int] = unix_ms
) -> RequestForwarder[ProbeRequest]:
    """Return the forwarder of changes of the share of probes; `publish` retains them for a camera that is offline."""

    def check(request: ProbeRequest) -> None:
        if not 0 <= request.probe_share <= 1:
            raise MalformedError(f"expected a probe share from 0 to 1, got {request.probe_share}")
        ahead_ms = request.issued_ms - clock_ms()
        if abs(ahead_ms) > MAX_AHEAD_MS:
            # An old request is a replay. If it were retained, a camera without its state would apply it.
            raise MalformedError(
                f"expected a request issued within {MAX_AHEAD_MS} ms of now, got one {ahead_ms} ms ahead"
            )

    return RequestForwarder(
        ProbeRequest, Channel.PROBES, Throttle(PROBE_REQUESTS_APART_S), keys, publish, refuse,
        same=lambda request: request.issued_ms, check=check,
    )  # fmt: skip


def refusals(keys: KeyRing, publish: Publish, refuse: Refuse) -> RequestForwarder[Refusal]:
    """Return the forwarder of refusals of frames: while frames are rejected, another refusal follows."""
    return RequestForwarder(
        Refusal, Channel.REFUSAL, Throttle(REFUSALS_APART_S), keys, publish, refuse,
        same=lambda _: None, most_bytes=MAX_REFUSAL_BYTES,
    )  # fmt: skip


def _camera(key: bytes) -> CameraId:
    try:
        return camera_id_on_wire(key.decode())
    except UnicodeDecodeError:
        raise MalformedError(f"expected a camera id as the record's key, got {key[:140]!r}") from None
