"""Twelve attacks by a stranger who reaches both brokers but has no certificate of this fleet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from benchmarks.harness.mqtt_line import Line, connect, subscription
from benchmarks.security.attacks.table.attack import Attack, until
from benchmarks.security.attacks.table.target import Target
from infra.pki.roles import share_name
from producers.bridge.mqtt.packets import publish_qos_0
from schemas.clock import unix_ms
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import OFFLINE, Command, Confirm, Range, Status
from schemas.topics import Channel, KafkaTopic, every_camera_filter, mqtt_topic, shared_filter
from schemas.transport.access import KafkaAccess, kafka_options

TRIES_PER_S: Final = 10.0
HALF_OPEN: Final = 800
OWN_SECRET: Final = b"the secret of a stranger's fleet"
LOGIN: Final = ("mqtt login",)


def knocked(
    target: Target,
    end: float,
    first: Callable[[int], bytes],
    client_id: str = "somebody",
    will: tuple[str, bytes] | None = None,
    a_second: float = TRIES_PER_S,
) -> Counter[str]:
    """Try every way to connect in turn. `first` is sent together with the CONNECT."""
    done: Counter[str] = Counter()
    ways = list(target.ways.values())
    for number in until(end, a_second):
        done["tries"] += 1
        try:
            with Line(target.mqtt, ways[number % len(ways)], client_id, will, first(number)) as line:
                done["reached: let in"] += 1
                line.listen()
                done["reached: heard"] += len(line.heard)
        except OSError:
            continue
    return done


def _forged_frames(target: Target, end: float) -> Counter[str]:
    frames = target.own_frames(7, 50)
    topic = mqtt_topic(target.cameras[0], Channel.FRAME)
    return knocked(target, end, lambda number: publish_qos_0(topic, frames[number % len(frames)]))


def _replayed_frames(target: Target, end: float) -> Counter[str]:
    frames = target.overheard(target.cameras[0], 50)
    topic = mqtt_topic(target.cameras[0], Channel.FRAME)
    return knocked(target, end, lambda number: publish_qos_0(topic, frames[number % len(frames)]))


def _confirmations(target: Target, end: float) -> Counter[str]:
    camera = target.cameras[0]
    forged = sign_message(
        derive_camera_key(OWN_SECRET, camera), Confirm(boot_id=1, ranges=[Range(first=0, last=2**40)])
    )
    return knocked(target, end, lambda _: publish_qos_0(mqtt_topic(camera, Channel.CONFIRM), forged))


def _commands(target: Target, end: float) -> Counter[str]:
    camera = target.cameras[0]

    def command(_: int) -> bytes:
        order = Command(issued_ms=unix_ms(), dropped_per_block=0, enabled=False)
        signed = sign_message(derive_camera_key(OWN_SECRET, camera), order)
        return publish_qos_0(mqtt_topic(camera, Channel.SETTINGS), signed, retain=True)

    return knocked(target, end, command)


def _status(target: Target, end: float) -> Counter[str]:
    camera = target.cameras[0]
    gone = sign_message(derive_camera_key(OWN_SECRET, camera), Status(state=OFFLINE, boot_id=1))
    return knocked(target, end, lambda _: publish_qos_0(mqtt_topic(camera, Channel.STATUS), gone, retain=True))


def _wills(target: Target, end: float) -> Counter[str]:
    will = (mqtt_topic(target.cameras[0], Channel.STATUS), b"gone")
    return knocked(target, end, lambda _: b"", will=will)


def _takeover(target: Target, end: float) -> Counter[str]:
    halves = (time.monotonic() + end) / 2
    return knocked(target, halves, lambda _: b"", client_id="bridge") + knocked(
        target, end, lambda _: b"", client_id=str(target.cameras[0])
    )


def _reading(target: Target, end: float) -> Counter[str]:
    names = (
        "#",
        "$SYS/#",
        every_camera_filter(Channel.FRAME),
        shared_filter(share_name(target.layout.pki), Channel.FRAME),
    )
    packets = b"".join(subscription(name, number) for number, name in enumerate(names, 1))
    return knocked(target, end, lambda _: packets)


def _login_flood(target: Target, end: float) -> Counter[str]:
    return knocked(target, end, lambda _: b"", a_second=200.0)


def _half_open(target: Target, end: float) -> Counter[str]:
    """Open connections that send nothing, next to the good cameras' connections, and hold them."""
    held: list[socket.socket] = []
    done: Counter[str] = Counter()
    try:
        for _ in until(end, 400.0):
            if len(held) >= HALF_OPEN:
                continue
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(target.mqtt, 1.0))
                done["connections"] += 1
    finally:
        for link in held:
            link.close()
    return done


def _huge(target: Target, end: float) -> Counter[str]:
    """Announce impossible lengths to the MQTT and Kafka ports, over TLS without a certificate and without TLS."""
    done: Counter[str] = Counter()
    host, _, port = target.kafka.rpartition(":")
    packets = (b"\x10\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x16\x03\x01\xff\xff", connect("x" * 60_000))
    for number in until(end, TRIES_PER_S):
        place = target.mqtt if number % 2 else (host, int(port))
        done["tries"] += 1
        try:
            with socket.create_connection(place, 2.0) as link:
                if number % 4 < 2:
                    link.sendall(packets[number // 4 % len(packets)] + bytes(2**20))
                    continue
                context = target.ways["without a certificate"]
                assert context is not None
                with context.context().wrap_socket(link, server_hostname=place[0]) as secured:
                    secured.sendall(packets[number // 4 % len(packets)] + bytes(2**20))
                    secured.settimeout(2.0)
                    done["reached: answered"] += bool(secured.recv(1))
        except (OSError, ssl.SSLError):
            continue
    return done


def _kafka(target: Target, end: float) -> Counter[str]:
    """Produce forged verdicts and frames directly into Kafka, with every kind of access that its clients support."""
    done: Counter[str] = Counter()
    frame = target.own_frames(9, 1)[0]

    async def produce(address: KafkaAccess | str) -> None:
        producer = AIOKafkaProducer(**kafka_options(address), request_timeout_ms=1500, metadata_max_age_ms=1500)
        try:
            async with asyncio.timeout(2.0):
                await producer.start()
                for topic in (KafkaTopic.FRAMES, KafkaTopic.VERDICTS):
                    await producer.send_and_wait(topic.value, frame, key=target.cameras[0].encode())
                    done["reached: produced"] += 1
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await producer.stop()

    ways = list(target.ways.values())
    for number in until(end, 1.0):
        tls = ways[number % len(ways)]
        done["tries"] += 1
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            asyncio.run(produce(KafkaAccess(target.kafka, tls) if tls is not None else target.kafka))
    return done


_stranger = partial(Attack, who="stranger")
STRANGERS: Final = (
    _stranger(name="forged frames", what="publishes frames under a key of his own as a camera's", answer="refused",
              seen_by=LOGIN, run=_forged_frames),
    _stranger(name="replayed frames", what="publishes again what he has recorded of a camera's genuine frames",
              answer="refused", seen_by=LOGIN, run=_replayed_frames),
    _stranger(name="confirmations", what="confirms to a camera what Kafka has not got", answer="refused", seen_by=LOGIN,
              run=_confirmations),
    _stranger(name="commands", what="turns a camera off, and its drop, by a retained command", answer="refused",
              seen_by=LOGIN, run=_commands),
    _stranger(name="status", what="says, retained, that a camera is offline", answer="refused", seen_by=LOGIN,
              run=_status),
    _stranger(name="wills", what="leaves a will on a camera's status", answer="refused", seen_by=LOGIN, run=_wills),
    _stranger(name="session takeover", what="connects by the client id of the bridge, then of a camera",
              answer="refused", seen_by=LOGIN, run=_takeover),
    _stranger(name="reading", what="subscribes to everything, to $SYS, and to the bridges' share, whose name he knows",
              answer="refused", seen_by=LOGIN, run=_reading),
    _stranger(name="login flood", what="tries to get in 200 times a second", answer="bounded", seen_by=LOGIN,
              run=_login_flood),
    _stranger(name="half-open connections", what=f"holds {HALF_OPEN} connections that say nothing", answer="bounded",
              seen_by=("mqtt unnamed",), run=_half_open),
    _stranger(name="huge sizes", what="announces packets of up to 2 GiB to both brokers, with 1 MiB behind each",
              answer="refused", seen_by=(*LOGIN, "kafka's log"), run=_huge),
    _stranger(name="Kafka", what="produces forged frames and verdicts into Kafka itself", answer="refused",
              seen_by=("kafka's log",), run=_kafka),
)  # fmt: skip
"""Attacks that each try four ways: without TLS, without a certificate, with another fleet's, and with an expired one.
"""
