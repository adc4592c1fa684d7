"""A hostile publisher: random, mutated and replayed payloads at the topics that the bridge reads."""

from __future__ import annotations

import random
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from schemas.identity import CameraId
from schemas.topics import Channel, every_camera_filter, mqtt_topic

WINDOW = 500


class Eavesdropper:
    """Keeps real payloads as they pass, to mutate and to replay them."""

    def __init__(self, host: str, port: int, keep: int = 400) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._keep = keep
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.connect(host, port)
        self._client.subscribe(every_camera_filter(Channel.FRAME), qos=0)
        self._client.subscribe(every_camera_filter(Channel.EVENT), qos=0)
        self._client.loop_start()

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if len(self.heard) < self._keep:
            self.heard.append((message.topic, bytes(message.payload)))

    def await_payloads(self, count: int, deadline_s: float = 60.0) -> list[tuple[str, bytes]]:
        """What was heard, once it is `count` payloads."""
        end = time.monotonic() + deadline_s
        while len(self.heard) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"expected {count} payloads within {deadline_s:g} s, heard {len(self.heard)}")
            time.sleep(0.05)
        return list(self.heard)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def hostile_message(
    source: random.Random, heard: list[tuple[str, bytes]], cameras: list[CameraId]
) -> tuple[str, bytes]:
    """One topic and payload, none of which a camera would send now."""
    kind = source.randrange(6)
    camera = source.choice(cameras)
    if kind == 0:
        return mqtt_topic(camera, Channel.FRAME), source.randbytes(source.choice((0, 1, 9, 50, 2346, 20_000)))
    topic, payload = source.choice(heard)
    if kind == 1:
        return topic, payload
    if kind == 2:
        other = mqtt_topic(source.choice(cameras), Channel.EVENT if topic.endswith("event") else Channel.FRAME)
        return other, payload
    if kind == 3:
        return topic, payload[: source.randrange(len(payload))]
    if kind == 4:
        return f"pointillist/v1/stranger/cam-{source.randrange(10_000)}/frame", payload
    mutated = bytearray(payload)
    for _ in range(source.choice((1, 1, 1, 4))):
        mutated[source.randrange(len(mutated))] ^= 1 << source.randrange(8)
    return topic, bytes(mutated)


def publish_hostile(host: str, port: int, messages: int, cameras: list[CameraId], seed: int = 0) -> float:
    """Publish `messages` hostile payloads at QoS 1; the seconds it took.

    Replays use what the eavesdropper hears of the good traffic, so that must be running.
    """
    ear = Eavesdropper(host, port)
    try:
        heard = ear.await_payloads(50)
    finally:
        ear.close()
    source = random.Random(seed)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    room = threading.Semaphore(WINDOW)
    client.on_publish = lambda *_: room.release()
    client.max_inflight_messages_set(WINDOW)
    client.connect(host, port)
    client.loop_start()
    begun = time.monotonic()
    for _ in range(messages):
        topic, payload = hostile_message(source, heard, cameras)
        room.acquire()
        client.publish(topic, payload, qos=1)
    for _ in range(WINDOW):
        room.acquire()
    elapsed = time.monotonic() - begun
    client.disconnect()
    client.loop_stop()
    return elapsed
