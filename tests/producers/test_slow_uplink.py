"""A camera behind a slow uplink: one frame takes longer than the broker waits for a ping."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from schemas.identity import CameraId
from schemas.messages.frame import encode_frame
from tests.producers.fake_bridge import FakeBridge
from tests.producers.publisher_rig import QUICK, Camera, camera
from tests.waiting import until

pytestmark = pytest.mark.brokers

BYTES_PER_S = 60_000
STEP_S = 0.05
SIDE = 480
"""The side of a frame whose upload takes more than eight seconds; a ping must be answered within three."""


class Uplink:
    """A relay to the broker with a small buffer: bytes wait in the camera's send buffer."""

    def __init__(self, broker: tuple[str, int]) -> None:
        self.is_stopped = False
        self.relayed_bytes = 0
        """Bytes that reached the broker."""
        self.connections = 0
        self._broker = broker
        self._ends: list[asyncio.StreamWriter] = []
        self._ended = 0

    async def serve(self, camera: asyncio.StreamReader, to_camera: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        self.connections += 1
        broker, to_broker = await asyncio.open_connection(*self._broker)
        self._ends += [to_camera, to_broker]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relay(camera, to_broker, slow=True))
            group.create_task(self._relay(broker, to_camera, slow=False))
        self._ended += 1

    async def close(self) -> None:
        """Break all connections."""
        self.is_stopped = False
        for end in self._ends:
            end.transport.abort()
        await until(lambda: self._ended == self.connections)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, slow: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(int(BYTES_PER_S * STEP_S)):
                target.write(data)
                if slow:
                    self.relayed_bytes += len(data)
                    await asyncio.sleep(STEP_S)
                    while self.is_stopped:
                        await asyncio.sleep(STEP_S)
        target.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        listening.bind(("127.0.0.1", 0))
        yield listening


@asynccontextmanager
async def behind_slow_uplink(
    listening: socket.socket, folder: Path, broker: tuple[str, int], camera_id: CameraId, limit: int = 8192
) -> AsyncIterator[tuple[Uplink, Camera]]:
    """Connect a camera through a slow relay; bytes wait in its send buffer, or in the relay up to twice the `limit`."""
    uplink = Uplink(broker)
    server = await asyncio.start_server(uplink.serve, sock=listening, limit=limit)
    try:
        async with camera(folder, listening.getsockname(), camera_id, link=QUICK) as cam:
            yield uplink, cam
    finally:
        server.close()
        await uplink.close()


def publish(cam: Camera, side: int) -> int:
    """Publish a frame of this side, and return the bytes of its message."""
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    boot, now_ms = cam.spool.current, time.time_ns() // 10**6
    payload = encode_frame(cam.key, boot.boot_id, boot.next, now_ms, picture, cam.control.encoding)
    cam.publisher.publish(payload, boot.next, now_ms, picture.nbytes)
    return len(payload)


async def test_a_frame_that_takes_two_keep_alives_arrives_on_the_first_connection(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, listening: socket.socket
) -> None:
    with FakeBridge(broker) as bridge:
        async with behind_slow_uplink(listening, tmp_path, broker, camera_id) as (uplink, cam):
            assert publish(cam, SIDE) > 8 * BYTES_PER_S
            cam.publish(2)
            await until(lambda: cam.spool.frames == 0, "three confirmed frames")
            assert bridge.confirmed == set(cam.identities(0, 1, 2))
            assert uplink.connections == 1


async def test_frames_buffered_in_a_proxy_for_two_keep_alives_arrive_on_the_first_connection(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        async with behind_slow_uplink(listening, tmp_path, broker, camera_id, limit=2**20) as (uplink, cam):
            sent = [publish(cam, 120) for _ in range(16)]
            assert sum(sent) > 8 * BYTES_PER_S
            await until(lambda: cam.spool.frames == 0, "the confirmed frames")
            assert bridge.confirmed == set(cam.identities(*range(16)))
            assert uplink.connections == 1


async def test_an_uplink_that_stalls_within_a_frame_is_disconnected(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, listening: socket.socket
) -> None:
    async with behind_slow_uplink(listening, tmp_path, broker, camera_id) as (uplink, cam):
        publish(cam, SIDE)
        await until(lambda: uplink.relayed_bytes > 2 * BYTES_PER_S, "the beginning of the frame")
        uplink.is_stopped = True
        await until(lambda: not cam.publisher.link.up, "the end of the connection", 5 * QUICK.keepalive_s)
