"""A cheap publisher, so that the broker and the bridge dominate the measurement.

Frames are built in advance and written to a plain socket as MQTT 5 at QoS 1, with many unacknowledged.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, encode_frame
from schemas.topics import Channel, mqtt_topic
from schemas.transport.mqtt.packets import text
from schemas.varint import varint

UNACKNOWLEDGED = 1000
_CONNECT = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04load"


def signed_frames(keys: KeyRing, cameras: int, count: int, boot: int) -> list[tuple[str, bytes]]:
    """Return MQTT topic and message of `count` different frames, 32x32 RGB with a quarter dropped.

    The frames are spread over `cameras` cameras, all in their boot `boot`. The bridge writes a frame that is sent again
    only once.
    """
    generator = np.random.default_rng(0)
    ids = [CameraId(f"bench/camera-{index}") for index in range(cameras)]
    frames = []
    for index in range(count):
        camera_id = ids[index % cameras]
        picture = generator.integers(0, 256, (32, 32, 3), np.uint8)
        message = encode_frame(keys.current(camera_id), boot, index // cameras, unix_ms(), picture, Encoding(16))
        frames.append((mqtt_topic(camera_id, Channel.FRAME), message))
    return frames


def publish(host: str, port: int, frames: Sequence[tuple[str, bytes]], count: int) -> float:
    """Publish `count` frames, repeating `frames` as needed. Return the monotonic time of the first."""
    bodies = _bodies(frames)
    with _connected(host, port) as link:
        started = time.monotonic()
        sent = acknowledged = 0
        rest = b""
        while acknowledged < count:
            room = min(count - sent, UNACKNOWLEDGED - (sent - acknowledged))
            if room >= UNACKNOWLEDGED // 4 or (room and sent + room == count):
                link.sendall(b"".join(_packet(bodies, number) for number in range(sent, sent + room)))
                sent += room
            found, rest = _acknowledged(link, rest)
            acknowledged += found
        return started


def publish_paced(
    host: str, port: int, frames: Sequence[tuple[str, bytes]], count: int, per_s: float, cameras: int = 32
) -> float:
    """Publish as `publish` does, but as `cameras` cameras with fixed intervals that began at random times."""
    bodies = _bodies(frames)
    phases = np.sort(np.random.default_rng(0).random(cameras)) * cameras / per_s
    with _connected(host, port) as link:
        started = time.monotonic()
        rest = b""
        acknowledged = 0
        for number in range(count):
            due = started + phases[number % cameras] + number // cameras * cameras / per_s
            while (left := due - time.monotonic()) > 0:
                link.settimeout(left)
                with suppress(TimeoutError):
                    found, rest = _acknowledged(link, rest)
                    acknowledged += found
            link.settimeout(10)
            link.sendall(_packet(bodies, number))
        while acknowledged < count:
            found, rest = _acknowledged(link, rest)
            acknowledged += found
        return started


def _bodies(frames: Sequence[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    names = [(topic.encode(), payload) for topic, payload in frames]
    return [(text(name), b"\0" + payload) for name, payload in names]


def _packet(bodies: Sequence[tuple[bytes, bytes]], number: int) -> bytes:
    head, tail = bodies[number % len(bodies)]
    packet_id = struct.pack(">H", number % 65535 + 1)
    return b"\x32" + varint(len(head) + 2 + len(tail)) + head + packet_id + tail


def _connected(host: str, port: int) -> socket.socket:
    link = socket.create_connection((host, port), 10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(_CONNECT)
    if link.recv(4096)[:1] != b"\x20":
        raise ConnectionError("MQTT connection: expected a CONNACK, got another packet")
    return link


def _acknowledged(link: socket.socket, rest: bytes) -> tuple[int, bytes]:
    """Return the number of PUBACKs in `rest` and the next bytes of the connection, and the incomplete packet."""
    data = link.recv(65536)
    if not data:
        raise ConnectionError("MQTT connection: expected PUBACKs, got the end of the connection")
    data = rest + data
    found = at = 0
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        found += data[at] == 0x40
        at += 2 + data[at + 1]
    return found, data[at:]
