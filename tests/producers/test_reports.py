"""A camera's reports to the broker: ledgers, status, meta, and last will."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter
from producers.spool import Spool
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import MAX_BROKER_BYTES
from schemas.messages.camera_status import is_newer
from schemas.messages.frame import Encoding, encode_frame, open_message, sign_message
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, Command, Meta, Status
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.publisher_rig import PICTURE, STEADY, camera
from tests.producers.scripted_broker import variable_byte_integer
from tests.waiting import until

pytestmark = pytest.mark.brokers


async def test_a_ledger_is_resent_until_it_is_confirmed(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge:
        bridge.confirming_ledgers = False
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(3)
            cam.publisher.finish()
            await until(lambda: cam.spool.frames == 0 and bridge.ledgers[camera_id, cam.spool.current.boot_id].closed)
            assert not cam.spool.drained
            bridge.confirming_ledgers = True
            await until(lambda: cam.spool.drained)


async def test_two_devices_with_one_name_are_both_degraded_and_keep_their_connections(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status = mqtt_topic(camera_id, Channel.STATUS)
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path / "a", broker, camera_id, link=STEADY) as first:
            await until(lambda: status in bridge.topics and Status.FromString(bridge.topics[status]).state == ONLINE)
            async with camera(tmp_path / "b", broker, camera_id, link=STEADY) as second:
                await until(lambda: first.publisher.presence.degraded and second.publisher.presence.degraded)
                first.publish(5)
                second.publish(5)
                await until(lambda: first.spool.frames == second.spool.frames == 0)
                assert Status.FromString(bridge.topics[status]).state == DEGRADED
                assert (first.publisher.link.connections, second.publisher.link.connections) == (1, 1)
            await until(lambda: not first.publisher.presence.degraded)
            await until(lambda: Status.FromString(bridge.topics[status]).state == ONLINE)


async def test_a_broken_connection_publishes_the_will_and_the_next_one_replaces_it(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status, meta = mqtt_topic(camera_id, Channel.STATUS), mqtt_topic(camera_id, Channel.META)
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics and Status.FromString(bridge.topics[status]).state == ONLINE)
            assert Meta.FromString(bridge.topics[meta]).install_id == cam.spool.install_id
            cam.cut(True)
            await until(lambda: Status.FromString(bridge.topics[status]).state == OFFLINE)
            cam.cut(False)
            await until(lambda: Status.FromString(bridge.topics[status]).state == ONLINE)


async def test_the_ledger_reports_the_first_unconfirmed_frame_while_the_camera_runs(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    unconfirmed = {7}
    with FakeBridge(broker, lambda frame: frame.seq not in unconfirmed) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(10)
            boot = camera_id, cam.spool.current.boot_id
            await until(lambda: boot in bridge.ledgers and bridge.ledgers[boot].confirmed_to == 7)
            unconfirmed.clear()
            await until(lambda: bridge.ledgers[boot].confirmed_to == 10)
            await cam.drain()
            last = bridge.ledgers[boot]
            assert (last.closed, last.next, last.confirmed_to) == (True, 10, 10)


async def test_status_meta_and_last_will_are_signed_and_ordered(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status, meta = mqtt_topic(camera_id, Channel.STATUS), mqtt_topic(camera_id, Channel.META)
    with FakeBridge(broker) as bridge:

        def status_message() -> Status:
            return open_message(Status, camera_id, bridge.topics[status], bridge.keys)

        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics and status_message().state == ONLINE and meta in bridge.topics)
            open_message(Meta, camera_id, bridge.topics[meta], bridge.keys)
            online = status_message()
            cam.cut(True)
            await until(lambda: status_message().state == OFFLINE)
            will = status_message()
            cam.cut(False)
            await until(lambda: status_message().state == ONLINE)
            again = status_message()
        await until(lambda: status_message().state == OFFLINE)
    order = [online, will, again, status_message()]
    for earlier, later in pairwise(order):
        assert is_newer(later, earlier, 0)
        assert not is_newer(earlier, later, 0)


async def test_a_forged_status_is_not_taken_for_a_second_device_of_the_same_name(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status = mqtt_topic(camera_id, Channel.STATUS)
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics)
            forged = Status(state=ONLINE, install_id="another", boot_id=1)
            bridge.publish(status, forged.SerializeToString())
            stranger = derive_camera_key(b"another fleet's secret", camera_id)
            bridge.publish(status, sign_message(stranger, forged))
            # The camera reads messages in order, so it has read the forged ones when it applies this command.
            command = Command(issued_ms=1, dropped_per_block=32)
            bridge.publish(mqtt_topic(camera_id, Channel.SETTINGS), sign_message(cam.key, command))
            await until(lambda: cam.control.encoding.dropped_per_block == 32)
            assert not cam.publisher.presence.degraded


class Meter:
    """A relay in front of the broker that grants `receive_maximum` and delays acknowledgements."""

    def __init__(self, target: tuple[str, int], receive_maximum: int) -> None:
        self.peak = 0
        self._target = target
        self._receive_maximum = receive_maximum
        self._open = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return "127.0.0.1", self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, up_writer]
        with suppress(asyncio.CancelledError, ConnectionError):
            await asyncio.gather(self._upward(reader, up_writer), self._downward(up_reader, writer))

    async def _upward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        splitter = PacketSplitter(MAX_BROKER_BYTES)
        while data := await source.read(65536):
            for first, _ in splitter.feed(data):
                if first & 0xF6 == PUBLISH | 2:
                    self._open += 1
                    self.peak = max(self.peak, self._open)
            sink.write(data)
        sink.close()

    async def _downward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        splitter = PacketSplitter(MAX_BROKER_BYTES)
        while data := await source.read(65536):
            for first, body in splitter.feed(data):
                if first & 0xF0 == 0x20:  # CONNACK: flags, reason, then our own properties
                    body = body[:2] + bytes((3, 0x21)) + self._receive_maximum.to_bytes(2, "big")
                if first & 0xF0 == 0x40:  # PUBACK
                    await asyncio.sleep(0.01)  # a slow broker
                    self._open -= 1
                sink.write(bytes((first,)) + variable_byte_integer(len(body)) + body)
        sink.close()


async def test_ledgers_of_many_old_boots_stay_within_the_brokers_receive_maximum(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    for _ in range(40):
        old = Spool(tmp_path, camera_id)
        payload = encode_frame(derive_camera_key(SECRET, camera_id), old.current.boot_id, 0, 1, PICTURE, Encoding())
        old.append(payload, 0, time.time_ns() // 10**6, PICTURE.nbytes)
        old.close()
    meter = Meter(broker, receive_maximum=10)
    address = await meter.start()
    try:
        with FakeBridge(broker) as bridge:
            async with camera(tmp_path, address, camera_id, link=STEADY) as cam:
                await cam.drain()
                assert cam.publisher.link.connections == 1
                assert len(bridge.ledgers) == 41
    finally:
        await meter.close()
    assert meter.peak <= 10
