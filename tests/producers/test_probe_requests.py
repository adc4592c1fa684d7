from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from producers.bridge.probe_requests import ProbeRequests
from producers.publisher.commands import CameraControl
from schemas.frame import Encoding, open_own_message
from schemas.identity import CameraId
from schemas.pointillist_pb2 import LOSSLESS, Command, ProbeRequest
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import KEYS, new_camera, rig
from tests.waiting import until

CAMERA = CameraId("site/door")
CE_TYPE = b"pointillist.v1.ProbeRequest"


class Event:
    def __init__(self, value: bytes | None, key: bytes | None = CAMERA.encode(), kind: bytes = CE_TYPE) -> None:
        self.value, self.key, self.headers = value, key, [("ce_type", kind)]


def passed_on(*rounds: tuple[float, list[Any]]) -> list[tuple[str, bytes]]:
    out: list[tuple[str, bytes]] = []
    requests = ProbeRequests(KEYS, lambda topic, payload: out.append((topic, payload)))
    for now_s, events in rounds:
        requests.take(events, now_s)
    return out


def asked(share: float = 0.5, issued_ms: int = 5) -> bytes:
    request = ProbeRequest(issued_ms=issued_ms, probe_share=share, dropped_per_block=24, profile=LOSSLESS)
    return request.SerializeToString()


def test_a_request_becomes_a_command_that_its_camera_obeys_and_keeps(tmp_path: Path) -> None:
    ((topic, payload),) = passed_on((0.0, [Event(asked())]))
    assert topic == f"pointillist/v1/{CAMERA}/cmd/settings"
    control = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding())
    assert control.command(payload)
    assert control.encoding == Encoding(24, 0.5, LOSSLESS)
    assert CameraControl(tmp_path, KEYS.current(CAMERA), Encoding()).encoding == Encoding(24, 0.5, LOSSLESS)
    assert not control.command(payload)


def test_two_bridges_make_the_same_message_of_a_request() -> None:
    assert passed_on((0.0, [Event(asked())])) == passed_on((3.0, [Event(asked())]))


def test_a_camera_is_told_once_in_a_while_and_others_beside_it() -> None:
    other = Event(asked(), b"site/gate")
    out = passed_on((0.0, [Event(asked()), Event(asked(0.7)), other]), (0.6, [Event(asked(0.9, 6))]))
    told = [(topic.split("/")[3], _command(topic, payload).probe_share) for topic, payload in out]
    assert told == [("door", 0.5), ("gate", 0.5), ("door", 0.9)]


@pytest.mark.parametrize(
    "event",
    [
        Event(asked(), kind=b"pointillist.v1.KeyRequest"),
        Event(asked(), key=None),
        Event(asked(), key=b"no camera"),
        Event(asked(), key=b"\xff/\xff"),
        Event(b"\xff\xff\xff"),
        Event(asked(share=1.5)),
        Event(asked(share=float("nan"))),
        Event(ProbeRequest(dropped_per_block=64).SerializeToString()),
    ],
)
def test_what_is_no_request_is_passed_over_and_the_next_one_heard(event: Event) -> None:
    assert len(passed_on((0.0, [event, Event(asked())]))) == 1


@pytest.mark.brokers
async def test_a_bridge_retains_the_command_for_a_camera_that_is_away(mosquitto: Mosquitto, kafka: Kafka) -> None:
    camera_id = new_camera()
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    heard: list[MQTTMessage] = []
    async with rig(mosquitto, kafka) as made:
        await producer.start()
        try:
            bridge = await made.bridge()
            issued_ms = count(1)

            async def asked_until_passed_on() -> bool:
                # A bridge that has just started may not hear the first one: the recorder asks again.
                await producer.send_and_wait(
                    KafkaTopic.EVENTS.value,
                    asked(issued_ms=next(issued_ms)),
                    key=camera_id.encode(),
                    headers=[("ce_type", CE_TYPE)],
                )
                return bool(bridge.metric("pointillist_bridge_probe_requests_total"))

            await until(asked_until_passed_on, "a request passed on")
        finally:
            await producer.stop()
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = lambda c, *_: c.subscribe(mqtt_topic(camera_id, Channel.SETTINGS), 1)
        client.on_message = lambda _c, _u, message: heard.append(message)
        client.connect(mosquitto.host, mosquitto.port)
        client.loop_start()
        try:
            await until(lambda: bool(heard), "the retained command")
        finally:
            client.disconnect()
            client.loop_stop()
    assert heard[0].retain
    assert open_own_message(Command, KEYS.current(camera_id), bytes(heard[0].payload)).probe_share == 0.5


def _command(topic: str, payload: bytes) -> Command:
    camera = CameraId("/".join(topic.split("/")[2:4]))
    return open_own_message(Command, KEYS.current(camera), payload)
