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
from producers.bridge.requests.key_frames import KeyRequests
from producers.publisher.commands import CameraControl
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, open_own_message, sign_message
from schemas.pointillist_pb2 import Command, KeyRequest
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import KEYS, new_camera, rig
from tests.producers.publisher_rig import camera, watching
from tests.waiting import until

CAMERA = CameraId("site/door")
CE_TYPE = b"pointillist.v1.KeyRequest"


class Event:
    def __init__(self, value: bytes | None, key: bytes | None = CAMERA.encode(), kind: bytes = CE_TYPE) -> None:
        self.value, self.key, self.headers = value, key, [("ce_type", kind)]


def passed_on(*groups: tuple[float, list[Any]]) -> list[tuple[str, bytes]]:
    out: list[tuple[str, bytes]] = []
    requests = KeyRequests(KEYS, lambda topic, payload: out.append((topic, payload)), lambda _: None)
    for now_s, events in groups:
        requests.take(events, now_s)
    return out


def wanted(seq: int = 3, camera_id: CameraId = CAMERA) -> bytes:
    return sign_message(KEYS.current(camera_id), KeyRequest(boot_id=7, seq=seq))


def test_a_request_becomes_a_message_that_its_camera_believes(tmp_path: Path) -> None:
    ((topic, payload),) = passed_on((0.0, [Event(wanted())]))
    assert topic == f"pointillist/v1/{CAMERA}/cmd/key"
    control = CameraControl(tmp_path, KEYS.current(CAMERA), Encoding())
    control.request_key(payload)
    assert control.key_wanted == (7, 3)
    stranger = CameraControl(tmp_path, derive_camera_key(b"another fleet's secret", CAMERA), Encoding())
    with pytest.raises(WireError):
        stranger.request_key(payload)
    with pytest.raises(WireError):
        control.request_key(sign_message(KEYS.current(CAMERA), Command(issued_ms=1)))


def test_a_key_frame_is_asked_for_once_in_a_while_and_others_beside_it() -> None:
    same = (0.5, [Event(wanted())])
    out = passed_on(
        (0.0, [Event(wanted()), Event(wanted())]), same, (0.6, [Event(wanted(4))]), (1.2, [Event(wanted())])
    )
    seqs = [open_own_message(KeyRequest, KEYS.current(CAMERA), payload).seq for _, payload in out]
    assert seqs == [3, 4, 3]


@pytest.mark.parametrize(
    "event",
    [
        Event(wanted(), kind=b"pointillist.v1.Ledger"),
        Event(wanted(), key=None),
        Event(wanted(), key=b"no camera"),
        Event(wanted(), key=b"\xff/\xff"),
        Event(b"\xff\xff\xff"),
        Event(KeyRequest(boot_id=7, seq=3).SerializeToString()),
        Event(wanted(camera_id=CameraId("site/gate"))),
        Event(KeyRequest(boot_id=7, seq=3, key_generation=99_999).SerializeToString()),
    ],
)
def test_what_is_no_request_is_passed_over_and_the_next_one_heard(event: Event) -> None:
    assert len(passed_on((0.0, [event, Event(wanted())]))) == 1


@pytest.mark.brokers
async def test_a_bridge_passes_requests_from_kafka_to_the_camera(mosquitto: Mosquitto, kafka: Kafka) -> None:
    camera_id = new_camera()
    heard: list[MQTTMessage] = []
    async with rig(mosquitto, kafka) as made:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = lambda c, *_: c.subscribe(mqtt_topic(camera_id, Channel.KEY_REQUEST), 1)
        client.on_message = lambda _c, _u, message: heard.append(message)
        client.connect(mosquitto.host, mosquitto.port)
        client.loop_start()
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        try:
            bridge = await made.bridge()
            seqs = count()

            async def asked_until_heard() -> bool:
                # A bridge that has just started may not hear the first one: whoever misses a key frame asks again.
                await producer.send_and_wait(
                    KafkaTopic.EVENTS.value,
                    wanted(next(seqs), camera_id),
                    key=camera_id.encode(),
                    headers=[("ce_type", CE_TYPE)],
                )
                return bool(heard)

            await until(asked_until_heard, "a request at the camera")
            await until(lambda: bridge.metric("pointillist_bridge_key_requests_total") >= 1, "a request counted")
        finally:
            client.disconnect()
            client.loop_stop()
            await producer.stop()
    request = open_own_message(KeyRequest, KEYS.current(camera_id), bytes(heard[0].payload))
    assert request.boot_id == 7
    assert not heard[0].retain


@pytest.mark.brokers
async def test_a_camera_keeps_the_key_frame_of_a_signed_request(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    topic = mqtt_topic(camera_id, Channel.KEY_REQUEST)
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(1)
            await until(lambda: cam.spool.frames == 0, "a connection: requests are not retained")
            bridge.publish(
                topic, sign_message(derive_camera_key(b"another fleet's secret", camera_id), KeyRequest(seq=9))
            )
            bridge.publish(topic, sign_message(cam.key, KeyRequest(boot_id=7, seq=3)))
            await until(lambda: cam.control.key_wanted is not None, "the request")
            assert cam.control.key_wanted == (7, 3)
