"""An attacker with stolen certificates of roles but without any key, and the effect on the good frames.

TLS and access rights stop a stranger (`benchmarks.security.attacks.table`). This module measures the defences behind
them: the attacker holds the certificate of `admin` at the MQTT broker and that of a bridge in Kafka.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from types import TracebackType
from typing import Self

import paho.mqtt.client as mqtt
from aiokafka import AIOKafkaProducer
from google.protobuf.message import Message
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.harness.system import RunningSystem
from benchmarks.security.attacks.table.line import Line
from consumers.database.queries import open_records
from infra.pki.roles import role_tls
from infra.state_folder import Layout
from producers.bridge.mqtt.packets import publish_qos_0
from schemas.identity import CameraId
from schemas.topics import Channel, KafkaTopic, every_camera_filter, parse_mqtt_topic
from schemas.transport.access import KafkaAccess, kafka_options


class Stranger:
    """A client that subscribes to the cameras' `meta`, and publishes and produces arbitrary messages."""

    def __init__(self, system: RunningSystem) -> None:
        self.heard: dict[CameraId, list[bytes]] = {}
        """The `meta` payloads of each camera, oldest first, including the attacker's own."""
        self.thrown_out = 0
        """The number of publications that even these rights forbid."""
        roles, pki = system.roles(), Layout(system.state).pki
        self._kafka = KafkaAccess(roles["kafka"]["listen"], role_tls(pki, "bridge"))
        host, _, port = roles["mosquitto"]["listen"].partition(":")
        self._mqtt = (host, int(port))
        self._nobody = role_tls(pki, "audit")
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.tls_set_context(role_tls(pki, "admin").context())
        self._client.connect(host, int(port))
        self._client.subscribe(every_camera_filter(Channel.META), qos=1)
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish over MQTT, retained.

        Camera topics are published with a certificate that has only the right to connect.
        """
        if "/cmd/" in topic:
            self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
            return
        with Line(self._mqtt, self._nobody) as line:
            line.send(publish_qos_0(topic, payload, retain=True))
            end = time.monotonic() + 5
            while line.listen():
                if time.monotonic() > end:
                    raise TimeoutError("camera topic: expected a disconnect within 5 s, got none")
            self.thrown_out += 1

    def produce(self, kind: type[Message], events: list[tuple[CameraId, bytes]]) -> None:
        """Write events of a kind into Kafka as a bridge or the recorder does, but without a valid signature."""
        headers = [("ce_type", kind.DESCRIPTOR.full_name.encode())]

        async def run() -> None:
            async with AIOKafkaProducer(**kafka_options(self._kafka)) as producer:
                for camera, payload in events:
                    await producer.send_and_wait(KafkaTopic.EVENTS.value, payload, key=camera.encode(), headers=headers)

        asyncio.run(run())

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        camera, _ = parse_mqtt_topic(message.topic)
        self.heard.setdefault(camera, []).append(bytes(message.payload))


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 10**6


def p99_s(layout: Layout, since_ms: int, until_ms: int) -> float | None:
    """Return the 99th percentile of capture-to-record latency, in seconds, over the frames captured in that time."""
    with open_records(layout.database_url) as records:
        return records.latency_quantiles(since_ms, until_ms).p99


def query(layout: Layout, text: str, *values: object) -> list[tuple[object, ...]]:
    """Return rows of the recorder's database."""
    with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
        return connection.execute(text, values).fetchall()


def refused(layout: Layout) -> dict[str, int]:
    """Return the number of dead letters for each reason."""
    rows = query(layout, "select reason, count(*) from dead_letters group by reason")
    return {str(reason): int(str(count)) for reason, count in rows}


def await_frames(layout: Layout, cameras: int, deadline_s: float = 60.0) -> None:
    """Wait until a frame of every camera is recorded."""
    end = time.monotonic() + deadline_s
    while not layout.database.is_file() or len(query(layout, "select distinct camera from frames")) < cameras:
        if time.monotonic() > end:
            raise TimeoutError(
                f"recorded frames: expected some of all {cameras} cameras within {deadline_s:g} s, got fewer"
            )
        time.sleep(0.2)
