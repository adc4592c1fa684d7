"""Eight attacks by the holder of a camera's enrolment: its certificate and its key."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from benchmarks.harness.mqtt_line import Line
from benchmarks.security.attacks.table.attack import Attack, until
from benchmarks.security.attacks.table.target import MALLORY, Target
from infra.pki.roles import role_tls
from producers.bridge.mqtt.packets import publish_qos_0
from schemas.clock import unix_ms
from schemas.limits import MAX_BROKER_BYTES, MAX_MESSAGE_BYTES
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import OFFLINE, Command, Confirm, Range, Status
from schemas.topics import Channel, KafkaTopic, every_camera_filter, mqtt_topic, shared_filter
from schemas.transport.access import KafkaAccess, kafka_options

FLOOD_PER_S: Final = 3000.0
AT_ONCE: Final = 50
HUGE_PER_S: Final = 4.0
FILTERS: Final = 200
OWN: Final = mqtt_topic(MALLORY, Channel.FRAME)


def send_packets(target: Target, end: float, packets: Callable[[int], bytes], a_second: float) -> Counter[str]:
    """Send packets one after the other, and reconnect after each disconnect."""
    done: Counter[str] = Counter()
    line: Line | None = None
    try:
        for number in until(end, a_second):
            try:
                if line is None:
                    line = Line(target.mqtt, target.mallory.tls)
                    done["connections"] += 1
                line.send(packets(number))
                done["messages"] += 1
            except OSError:
                if line is not None:
                    line.close()
                line = None
    finally:
        if line is not None:
            line.close()
    return done


def _forged(target: Target, end: float) -> Counter[str]:
    """Publish as another camera, at MQTT and in Kafka, and publish frames with wrong tags on its own topic."""
    own = target.own_frames(11, 50)
    others = mqtt_topic(target.cameras[0], Channel.FRAME)
    produced: Counter[str] = Counter()

    async def produce() -> None:
        producer = AIOKafkaProducer(**kafka_options(KafkaAccess(target.kafka, target.mallory.tls)))
        try:
            async with asyncio.timeout(5.0):
                await producer.start()
                await producer.send_and_wait(KafkaTopic.FRAMES.value, own[0], key=target.cameras[0].encode())
                produced["reached: produced"] += 1
        finally:
            await producer.stop()

    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        asyncio.run(produce())

    def forged(number: int) -> bytes:
        frame = bytearray(own[number % len(own)])
        if number % 10 == 0:
            return publish_qos_0(others, bytes(frame))
        frame[number % len(frame)] ^= 1
        return publish_qos_0(OWN, bytes(frame))

    return produced + send_packets(target, end, forged, 40.0)


def _replayed(target: Target, end: float) -> Counter[str]:
    """Replay its own frames repeatedly, and publish recorded frames of another camera as its own."""
    frames = target.own_frames(13, 10) + target.overheard(target.cameras[0], 10)
    return send_packets(target, end, lambda number: publish_qos_0(OWN, frames[number % len(frames)]), 80.0)


def _orders(target: Target, end: float) -> Counter[str]:
    """Publish confirmations and commands under its own key, to another camera and to itself."""

    def order(number: int) -> bytes:
        camera = (target.cameras[0], MALLORY)[number % 2]
        if number % 4 < 2:
            confirm = Confirm(boot_id=1, ranges=[Range(first=0, last=2**40)])
            return publish_qos_0(mqtt_topic(camera, Channel.CONFIRM), sign_message(target.mallory.key, confirm))
        command = Command(issued_ms=unix_ms(), dropped_per_block=0, enabled=False)
        return publish_qos_0(
            mqtt_topic(camera, Channel.SETTINGS), sign_message(target.mallory.key, command), retain=True
        )

    return send_packets(target, end, order, 10.0)


def _last_words(target: Target, end: float) -> Counter[str]:
    """Publish another camera's status, directly and as a last will."""
    gone = sign_message(target.mallory.key, Status(state=OFFLINE, boot_id=1))
    topic = mqtt_topic(target.cameras[0], Channel.STATUS)
    done: Counter[str] = Counter()
    # The broker's log has no line about a will that it refuses. A subscriber shows whether one was published.
    with Line(target.mqtt, role_tls(target.layout.pki, "admin"), "watcher") as watcher:
        watcher.subscribe(topic)
        for number in until(end, 5.0):
            with contextlib.suppress(OSError), Line(target.mqtt, target.mallory.tls, will=(topic, gone)) as line:
                done["wills"] += 1
                if number % 2:
                    line.send(publish_qos_0(topic, gone, retain=True))
            watcher.listen()
        said = [payload for _, payload in watcher.heard]
    if not said:
        raise RuntimeError(f"{topic}: expected its retained status, got none")
    done["reached: status published"] = said.count(gone)
    return done


def _takeover(target: Target, end: float) -> Counter[str]:
    """Connect twice at once with the client ids of the bridge and of a camera. The broker ends only the attacker's own
    sessions."""
    done: Counter[str] = Counter()
    for number in until(end, 5.0):
        client_id = ("bridge", str(target.cameras[0]))[number % 2]
        with contextlib.suppress(OSError), Line(target.mqtt, target.mallory.tls, client_id):
            done["connections"] += 1
            with Line(target.mqtt, target.mallory.tls, client_id):
                done["connections"] += 1
    return done


def _reading(target: Target, end: float) -> Counter[str]:
    """Subscribe to all topics, others' commands, the broker's log, and shared subscriptions with made-up names."""
    done: Counter[str] = Counter()
    fixed = ("#", "$SYS/#", every_camera_filter(Channel.FRAME), mqtt_topic(target.cameras[0], Channel.SETTINGS))
    with Line(target.mqtt, target.mallory.tls) as line:
        for name in fixed:
            line.subscribe(name)
        for number in until(end, FILTERS / 10):
            line.subscribe(shared_filter(f"bridges-{number}", Channel.FRAME))
            done["filters"] += 1
            if not line.listen():
                break
        done["reached: heard of others"] = sum(
            not topic.startswith(f"pointillist/v1/{MALLORY}/") for topic, _ in line.heard
        )
    return done


def _flood(target: Target, end: float) -> Counter[str]:
    """Publish valid frames far above its quota, then retained messages of the largest size, then larger ones."""
    sizes_from = end - (end - time.monotonic()) / 3
    frames = [publish_qos_0(OWN, frame) for frame in target.own_frames(17, 500)]
    batches = [b"".join(frames[at : at + AT_ONCE]) for at in range(0, len(frames), AT_ONCE)]
    done = send_packets(target, sizes_from, lambda number: batches[number % len(batches)], FLOOD_PER_S / AT_ONCE)
    done["messages"] *= AT_ONCE
    channels = (Channel.FRAME, Channel.META, Channel.STATUS, Channel.EVENT)

    def huge(number: int) -> bytes:
        size = MAX_MESSAGE_BYTES if number % 4 else MAX_BROKER_BYTES + 1
        return publish_qos_0(mqtt_topic(MALLORY, channels[number % len(channels)]), bytes(size), retain=True)

    return done + send_packets(target, end, huge, HUGE_PER_S)


def _extremes(target: Target, end: float) -> Counter[str]:
    """Publish extreme numbers, times in 1970 and the far future, and changing boots, all with valid tags."""
    now_ms = unix_ms()
    extremes = [
        frame
        for boot in (1, 2**62, 2**63 - 1)
        for first in (0, 2**53 - 9)
        for place, captured in enumerate((0, now_ms - 10**12, now_ms + 3_600_000, 2**53 - 1))
        for frame in target.own_frames(boot, 2, first + 2 * place, captured)
    ]
    return send_packets(target, end, lambda number: publish_qos_0(OWN, extremes[number % len(extremes)]), 20.0)


_camera = partial(Attack, who="camera")
ENROLLED: Final = (
    _camera(name="forged frames", what="publishes as another camera, at MQTT and in Kafka, and frames with wrong "
            "tags as its own", answer="refused", seen_by=("mqtt publish", "dead letter bad_tag", "kafka's log"),
            run=_forged),
    _camera(name="replayed frames", what="publishes its own frames again and again, and another's as its own",
            answer="refused", seen_by=("recorder duplicate", "dead letter bad_tag"), run=_replayed),
    _camera(name="confirmations and commands", what="confirms and commands under its own key, to another and to itself",
            answer="refused", seen_by=("mqtt publish",), run=_orders),
    _camera(name="status and wills", what="says that another camera is offline, retained and as its will",
            answer="refused", seen_by=("mqtt publish",), run=_last_words),
    _camera(name="session takeover", what="connects by the client id of the bridge or another camera, twice at once",
            answer="refused", seen_by=("mqtt takeover",), run=_takeover),
    _camera(name="reading others", what="subscribes to everything, to another's commands, to the broker's log, and "
            "to shares of ever new names", answer="refused", seen_by=("mqtt subscription",), run=_reading),
    _camera(name="flooding and huge sizes", what=f"sends {FLOOD_PER_S:.0f} valid frames a second, then "
            f"{HUGE_PER_S:.0f} messages a second of 15 MiB, retained, and of more than 16 MiB", answer="bounded",
            seen_by=("over quota local/mallory", "dead letter ", "mqtt oversize"), run=_flood),
    _camera(name="sequence and clock extremes", what="valid frames with the first and last numbers and boots there "
            "are, captured in 1970, in 2200 and later", answer="bounded",
            seen_by=("captured in the future",), run=_extremes),
)  # fmt: skip
