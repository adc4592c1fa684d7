from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from producers.bridge.requests.probes import ProbeRequests
from producers.publisher.commands import CameraControl
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import Encoding, open_own_message, sign_message
from schemas.pointillist_pb2 import LOSSLESS, ProbeRequest
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import KEYS, new_camera, rig
from tests.waiting import until

CAMERA = CameraId("site/door")
CE_TYPE = b"pointillist.v1.ProbeRequest"


class Event:
    def __init__(self, value: bytes | None, key: bytes | None = CAMERA.encode(), kind: bytes = CE_TYPE) -> None:
        self.value, self.key, self.headers = value, key, [("ce_type", kind)]


NOW_MS = 1_700_000_000_000


def passed_on(*groups: tuple[float, list[Any]], refused: list[str] | None = None) -> list[tuple[str, bytes]]:
    out: list[tuple[str, bytes]] = []
    refuse = (refused if refused is not None else []).append
    requests = ProbeRequests(KEYS, lambda topic, payload: out.append((topic, payload)), refuse, lambda: NOW_MS)
    for now_s, events in groups:
        requests.take(events, now_s)
    return out


def asked(share: float = 0.5, issued_ms: int = NOW_MS, camera_id: CameraId = CAMERA) -> bytes:
    return sign_message(KEYS.current(camera_id), ProbeRequest(issued_ms=issued_ms, probe_share=share))


def test_a_request_is_obeyed_and_kept_by_its_camera_and_changes_no_other_setting(tmp_path: Path) -> None:
    ((topic, payload),) = passed_on((0.0, [Event(asked())]))
    assert topic == f"pointillist/v1/{CAMERA}/cmd/probes"
    control = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding(24, 0.1, LOSSLESS))
    assert control.probe_request(payload)
    assert control.encoding == Encoding(24, 0.5, LOSSLESS)
    again = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding(24, 0.1, LOSSLESS))
    assert again.encoding == Encoding(24, 0.5, LOSSLESS)
    assert not again.probe_request(payload)
    with pytest.raises(WireError):
        again.command(payload)


def test_two_bridges_make_the_same_message_of_a_request() -> None:
    assert passed_on((0.0, [Event(asked())])) == passed_on((3.0, [Event(asked())]))


def test_a_request_that_is_replayed_is_passed_on_once_in_a_while_and_keeps_none_after_it_waiting() -> None:
    other = Event(asked(camera_id=CameraId("site/gate")), b"site/gate")
    out = passed_on((0.0, [Event(asked()), Event(asked()), other, Event(asked(0.9, NOW_MS + 1))]))
    told = [(topic.split("/")[3], _request(topic, payload).probe_share) for topic, payload in out]
    assert told == [("door", 0.5), ("gate", 0.5), ("door", 0.9)]


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("ahead_ms", [-MAX_AHEAD_MS, MAX_AHEAD_MS])
def test_shares_and_times_at_their_bounds_are_passed_on(share: float, ahead_ms: int) -> None:
    ((topic, payload),) = passed_on((0.0, [Event(asked(share, NOW_MS + ahead_ms))]))
    assert _request(topic, payload).probe_share == share


@pytest.mark.parametrize(
    "event",
    [
        Event(asked(), key=b"no camera"),
        Event(asked(), key=b"\xff/\xff"),
        Event(b"\xff\xff\xff"),
        Event(asked(share=1.5)),
        Event(asked(share=float("nan"))),
        Event(ProbeRequest(issued_ms=NOW_MS, probe_share=0.5).SerializeToString()),
        Event(asked(camera_id=CameraId("site/gate"))),
        Event(asked(issued_ms=NOW_MS + MAX_AHEAD_MS + 1)),
        Event(asked(issued_ms=2**63)),
        Event(asked(issued_ms=NOW_MS - MAX_AHEAD_MS - 1)),
    ],
)
def test_what_the_server_did_not_ask_just_now_is_counted_and_the_next_request_heard(event: Event) -> None:
    refused: list[str] = []
    assert len(passed_on((0.0, [event, Event(asked())]), refused=refused)) == 1
    assert refused == ["ProbeRequest"]


@pytest.mark.parametrize("event", [Event(asked(), kind=b"pointillist.v1.KeyRequest"), Event(asked(), key=None)])
def test_what_is_no_request_is_passed_over(event: Event) -> None:
    refused: list[str] = []
    assert len(passed_on((0.0, [event, Event(asked())]), refused=refused)) == 1
    assert not refused


@pytest.mark.brokers
async def test_a_bridge_retains_the_request_for_a_camera_that_is_away(mosquitto: Mosquitto, kafka: Kafka) -> None:
    camera_id = new_camera()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    heard: list[MQTTMessage] = []
    async with rig(mosquitto, kafka) as made:
        await producer.start()
        try:
            bridge = await made.bridge()
            forged = ProbeRequest(issued_ms=2**62, probe_share=0.0).SerializeToString()

            async def asked_until_told() -> bool:
                # A bridge that has just started may not hear the first one: the recorder asks again.
                for payload in (forged, asked(issued_ms=time.time_ns() // 10**6, camera_id=camera_id)):
                    await producer.send_and_wait(
                        KafkaTopic.EVENTS.value, payload, key=camera_id.encode(), headers=[("ce_type", CE_TYPE)]
                    )
                refused = bridge.metric("pointillist_bridge_refused_requests_total", kind="ProbeRequest")
                return bool(bridge.metric("pointillist_bridge_probe_requests_total") and refused)

            await until(asked_until_told, "a request passed on and a forged one refused")
        finally:
            await producer.stop()
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = lambda c, *_: c.subscribe(mqtt_topic(camera_id, Channel.PROBES), 1)
        client.on_message = lambda _c, _u, message: heard.append(message)
        client.connect(mosquitto.host, mosquitto.port)
        client.loop_start()
        try:
            await until(lambda: bool(heard), "the retained request")
        finally:
            client.disconnect()
            client.loop_stop()
    assert heard[0].retain
    assert open_own_message(ProbeRequest, KEYS.current(camera_id), bytes(heard[0].payload)).probe_share == 0.5


def _request(topic: str, payload: bytes) -> ProbeRequest:
    camera = CameraId("/".join(topic.split("/")[2:4]))
    return open_own_message(ProbeRequest, KEYS.current(camera), payload)
