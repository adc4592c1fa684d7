"""Signed requests of the server on their way from Kafka's events over the bridge to the camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from producers.bridge.requests.forwarder import key_requests, probe_requests
from producers.publisher.commands import CameraControl
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import Encoding, sign_message
from schemas.pointillist_pb2 import LOSSLESS, Command, KeyRequest, ProbeRequest
from schemas.topics import Channel, mqtt_topic
from tests.producers.bridge_rig import KEYS
from tests.producers.fake_bridge import FakeBridge
from tests.producers.kafka_stand_in import Event
from tests.producers.publisher_rig import camera
from tests.waiting import until

CAMERA, GATE = CameraId("site/door"), CameraId("site/gate")
NOW_MS = 1_700_000_000_000
KINDS = {KeyRequest: Channel.KEY_REQUEST, ProbeRequest: Channel.PROBES}


def key_request(seq: int = 3, camera_id: CameraId = CAMERA) -> bytes:
    return sign_message(KEYS.current(camera_id), KeyRequest(boot_id=7, seq=seq))


def probe_request(share: float = 0.5, issued_ms: int = NOW_MS, camera_id: CameraId = CAMERA) -> bytes:
    return sign_message(KEYS.current(camera_id), ProbeRequest(issued_ms=issued_ms, probe_share=share))


SIGNED: dict[type, Callable[[], bytes]] = {KeyRequest: key_request, ProbeRequest: probe_request}


def event(kind: type, value: bytes | None = None, key: bytes | None = CAMERA.encode()) -> Event:
    """Return a request as an event in Kafka; a valid one by default."""
    headers = [("ce_type", kind.DESCRIPTOR.full_name.encode())]  # type: ignore[attr-defined]  # of every message
    return Event(key, SIGNED[kind]() if value is None else value, headers)


def forwarded(kind: type, *groups: tuple[float, Sequence[Event]]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return the messages that the bridge publishes for events at these times, and the kinds of rejected requests."""
    out: list[tuple[str, bytes]] = []
    rejected: list[str] = []

    def publish(topic: str, payload: bytes) -> None:
        out.append((topic, payload))

    if kind is KeyRequest:
        forward = key_requests(KEYS, publish, rejected.append).forward
    else:
        forward = probe_requests(KEYS, publish, rejected.append, lambda: NOW_MS).forward
    for now_s, events in groups:
        forward(events, now_s)
    return out, rejected


def test_a_key_request_is_applied_only_by_its_camera(tmp_path: Path) -> None:
    [(topic, payload)], _ = forwarded(KeyRequest, (0.0, [event(KeyRequest)]))
    assert topic == f"pointillist/v1/{CAMERA}/cmd/key"
    control = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding())
    control.request_key(payload)
    assert control.key_wanted == (7, 3)
    stranger = CameraControl(tmp_path, derive_camera_key(b"another fleet's secret", CAMERA), Encoding())
    command = sign_message(KEYS.current(CAMERA), Command(issued_ms=1))
    for receiver, refused in ((stranger, payload), (control, command)):
        with pytest.raises(WireError):
            receiver.request_key(refused)


def test_a_probe_request_is_applied_and_stored_by_its_camera_and_changes_no_other_setting(tmp_path: Path) -> None:
    [(topic, payload)], _ = forwarded(ProbeRequest, (0.0, [event(ProbeRequest)]))
    assert topic == f"pointillist/v1/{CAMERA}/cmd/probes"
    control = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding(24, 0.1, LOSSLESS))
    assert control.probe_request(payload)
    again = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding(24, 0.1, LOSSLESS))
    assert control.encoding == again.encoding == Encoding(24, 0.5, LOSSLESS)
    assert not again.probe_request(payload)
    with pytest.raises(WireError):
        again.command(payload)


def test_a_replayed_request_is_forwarded_at_a_bounded_rate_and_delays_no_other() -> None:
    again, other, gate = event(KeyRequest), event(KeyRequest, key_request(4)), (key_request(3, GATE), GATE.encode())
    out, _ = forwarded(
        KeyRequest, (0.0, [again, again]), (0.5, [again]), (0.6, [other, event(KeyRequest, *gate)]), (1.2, [again])
    )
    seqs = [KeyRequest.FromString(payload).seq for _, payload in out]
    assert (seqs, [topic.split("/")[3] for topic, _ in out]) == ([3, 4, 3, 3], ["door", "door", "gate", "door"])
    same, newer = event(ProbeRequest), event(ProbeRequest, probe_request(0.9, NOW_MS + 1))
    out, _ = forwarded(ProbeRequest, (0.0, [same, same, newer]), (0.6, [same]))
    assert [ProbeRequest.FromString(payload).probe_share for _, payload in out] == pytest.approx([0.5, 0.9, 0.5])


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("ahead_ms", [-MAX_AHEAD_MS, MAX_AHEAD_MS])
def test_shares_and_times_at_their_limits_are_forwarded_unchanged(share: float, ahead_ms: int) -> None:
    request = probe_request(share, NOW_MS + ahead_ms)
    out, _ = forwarded(ProbeRequest, (0.0, [event(ProbeRequest, request)]))
    assert [payload for _, payload in out] == [request]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        *((kind, event(kind, key=key)) for kind in KINDS for key in (b"no camera", b"\xff/\xff", GATE.encode())),
        *((kind, event(kind, b"\xff\xff\xff")) for kind in KINDS),
        (KeyRequest, event(KeyRequest, KeyRequest(boot_id=7, seq=3).SerializeToString())),
        (KeyRequest, event(KeyRequest, KeyRequest(boot_id=7, seq=3, key_generation=99_999).SerializeToString())),
        (ProbeRequest, event(ProbeRequest, ProbeRequest(issued_ms=NOW_MS, probe_share=0.5).SerializeToString())),
        *((ProbeRequest, event(ProbeRequest, probe_request(share))) for share in (1.5, float("nan"))),
        *((ProbeRequest, event(ProbeRequest, probe_request(issued_ms=NOW_MS + ms)))
          for ms in (MAX_AHEAD_MS + 1, -MAX_AHEAD_MS - 1, 2**62)),
    ],
)  # fmt: skip
def test_an_invalid_or_outdated_request_is_counted_and_the_next_one_is_forwarded(kind: type, bad: Event) -> None:
    out, rejected = forwarded(kind, (0.0, [bad, event(kind)]))
    assert (len(out), rejected) == (1, [kind.__name__])


@pytest.mark.parametrize("kind", KINDS)
def test_other_records_are_ignored(kind: type) -> None:
    [other] = set(KINDS) - {kind}
    out, rejected = forwarded(kind, (0.0, [event(other), event(kind, key=None), event(kind)]))
    assert (len(out), rejected) == (1, [])


@pytest.mark.brokers
async def test_a_camera_stores_the_key_frame_of_a_signed_request(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    topic = mqtt_topic(camera_id, Channel.KEY_REQUEST)
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(1)
            await until(lambda: cam.spool.frames == 0, "a connection: requests are not retained")
            stranger = derive_camera_key(b"another fleet's secret", camera_id)
            bridge.publish(topic, sign_message(stranger, KeyRequest(seq=9)))
            bridge.publish(topic, sign_message(cam.key, KeyRequest(boot_id=7, seq=3)))
            await until(lambda: cam.control.key_wanted is not None, "the request")
            assert cam.control.key_wanted == (7, 3)
