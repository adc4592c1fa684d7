"""Conversion of an MQTT message to one Kafka record: the accepted message, or a dead letter."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

import structlog
from google.protobuf.message import Message

from producers.bridge.confirmations import Receipt
from schemas.clock import unix_ms
from schemas.errors import BadSizeError, MalformedError, WireError, typed_text
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_ANNOUNCEMENT_BYTES
from schemas.messages.camera_status import check_announcement
from schemas.messages.cloudevents import Headers, bridge_source, camera_source, event_headers, frame_event_id
from schemas.messages.dead_letters import dead_letter
from schemas.messages.frame import open_frame, open_message
from schemas.messages.ledger import open_ledger
from schemas.pointillist_pb2 import DeadLetter, Frame, Ledger, Meta, Status
from schemas.runtime import trace
from schemas.runtime.spans import root
from schemas.topics import Channel, KafkaTopic, parse_mqtt_topic

log = structlog.get_logger()

ROUTES: Final = 16_384
"""Maximum number of cached topics, because a client may publish under any number. Only well-formed topics, which
are short, are cached."""
MAX_ORIGIN_CHARACTERS: Final = 200
"""Maximum characters of a topic in a dead letter. Valid topics are shorter; an invalid one has up to 64 KiB."""

Announcement = TypeVar("Announcement", Status, Meta)


class Record(NamedTuple):
    """One Kafka record. `receipt` is confirmed to the camera when Kafka acknowledges the record, or None. A dead letter
    has one if the camera must shed its frame.
    """

    topic: KafkaTopic
    key: bytes
    value: bytes
    headers: Headers
    receipt: Receipt | None
    origin: str
    """The MQTT topic, or the beginning of a long one."""
    channel: str
    """The topic's last part; `unknown` for a topic that is not of this system."""
    reason: str = ""
    """The reason of a dead letter; empty for another record."""


def stamp_records(what: str, records: Iterable[Record]) -> None:
    """Stamp the frames among `records` in this process's trace, those in dead letters excepted."""
    for record in records:
        receipt = record.receipt
        if receipt is not None and receipt.seq >= 0 and record.topic is KafkaTopic.FRAMES:
            trace.stamp(what, Identity(receipt.camera_id, receipt.boot_id, receipt.seq))


class _Route(NamedTuple):
    """The fields of an MQTT topic; `refusal` is the reason why the topic is rejected."""

    origin: str
    camera_id: CameraId
    key: bytes
    channel: str
    source: str
    open: Callable[[_Route, bytes], Record] | None
    refusal: str


class RecordFactory:
    """Conversion of payloads. Every payload becomes a record; a rejected one becomes a dead letter with the reason."""

    def __init__(self, name: str, keys: KeyRing) -> None:
        """`name` is the bridge's name, given as the source of its dead letters."""
        self._keys = keys
        self._routes: OrderedDict[bytes, _Route] = OrderedDict()
        # Dead letters have ids of this process alone: two equal payloads are two events.
        self._boot = secrets.token_hex(8)
        self._dead_letters = 0
        self._source = bridge_source(name)

    def accept(self, topic: bytes, payload: bytes) -> Record:
        """Return the record for a message; never raises."""
        route = self._routes.get(topic) or self._route(topic)
        try:
            if route.open is None:
                raise MalformedError(route.refusal)
            return route.open(route, payload)
        except WireError as error:
            return self._dead_letter(route, payload, error.reason, str(error))
        except Exception as error:
            # Without a record, the payload would be redelivered without end, and block all later ones.
            log.exception("payload_rejected_by_defect", topic=route.origin)
            return self._dead_letter(route, payload, MalformedError.reason, typed_text(error))

    def refused_by_kafka(self, record: Record, error: str) -> Record:
        """Return the dead letter for a record that Kafka rejects even in a batch of its own. It has the receipt of a
        frame.
        """
        camera_id = CameraId(record.key.decode())
        route = _Route(record.origin, camera_id, record.key, record.channel, "", None, "")
        letter = self._dead_letter(route, record.value, BadSizeError.reason, error)
        return letter._replace(receipt=record.receipt if record.topic is KafkaTopic.FRAMES else None)

    def _route(self, topic: bytes) -> _Route:
        text = topic.decode(errors="replace")
        origin = text[:MAX_ORIGIN_CHARACTERS]
        try:
            camera_id, channel = parse_mqtt_topic(text)
        except WireError as error:
            # Not cached: a client may send any number of invalid topics, each of up to 64 KiB.
            return _Route(origin, CameraId(""), b"", "unknown", "", None, str(error))
        openers: dict[Channel, Callable[[_Route, bytes], Record]] = {
            Channel.FRAME: self._frame,
            Channel.EVENT: self._ledger,
            Channel.STATUS: partial(self._announcement, Status),
            Channel.META: partial(self._announcement, Meta),
        }
        source = camera_source(camera_id)
        refusal = f"expected a channel that cameras publish on, got {channel.value}"
        route = _Route(origin, camera_id, camera_id.encode(), channel.value, source, openers.get(channel), refusal)
        self._routes[topic] = route
        if len(self._routes) > ROUTES:
            self._routes.popitem(last=False)
        return route

    def _frame(self, route: _Route, payload: bytes) -> Record:
        camera_id = route.camera_id
        frame = open_frame(camera_id, payload, self._keys)
        boot_id, seq = frame.boot_id, frame.seq
        event_id = frame_event_id(boot_id, seq)
        headers = event_headers(route.source, Frame, event_id)
        if frame.traced:  # one frame is one trace, if its camera has sampled it
            name = f"{camera_id}/{event_id}"
            traceparent = root(name, sampled=True).header()
            headers.append((trace.TRACEPARENT, trace.follow("bridge", name, traceparent) or traceparent))
        receipt = Receipt(camera_id, boot_id, frame.key_generation, seq)
        return Record(KafkaTopic.FRAMES, route.key, payload, headers, receipt, route.origin, route.channel)

    def _ledger(self, route: _Route, payload: bytes) -> Record:
        ledger = open_ledger(route.camera_id, payload, self._keys)
        event_id = f"{ledger.boot_id:016x}/ledger/{ledger.revision}"
        receipt = Receipt(route.camera_id, ledger.boot_id, ledger.key_generation, -1, ledger.revision)
        return self._event(Ledger, route, payload, event_id, receipt)

    def _announcement(self, kind: type[Announcement], route: _Route, payload: bytes) -> Record:
        # Before the message is parsed: it names the key of its tag.
        if len(payload) > MAX_ANNOUNCEMENT_BYTES:
            raise BadSizeError(
                f"expected at most {MAX_ANNOUNCEMENT_BYTES} bytes of {route.channel}, got {len(payload)}"
            )
        check_announcement(open_message(kind, route.camera_id, payload, self._keys))
        # Every bridge forwards it. The id is a hash of the content, so all copies count as one event.
        event_id = blake2b(payload, digest_size=16).hexdigest()
        return self._event(kind, route, payload, event_id, None)

    def _event(
        self, kind: type[Message], route: _Route, payload: bytes, event_id: str, receipt: Receipt | None
    ) -> Record:
        headers = event_headers(route.source, kind, event_id)
        return Record(KafkaTopic.EVENTS, route.key, payload, headers, receipt, route.origin, route.channel)

    def _dead_letter(self, route: _Route, payload: bytes, reason: str, error: str) -> Record:
        self._dead_letters += 1
        origin, at_ms = (route.origin, -1, -1), unix_ms()
        letter = dead_letter("bridge", reason, error, origin, route.camera_id, payload, at_ms)
        headers = event_headers(self._source, DeadLetter, f"{self._boot}/{self._dead_letters}")
        value = letter.SerializeToString()
        return Record(KafkaTopic.DEAD_LETTERS, route.key, value, headers, None, route.origin, route.channel, reason)
