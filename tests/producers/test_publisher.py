from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.local.mosquitto import Mosquitto
from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings, Publisher, WindowSettings
from producers.publisher.commands import CameraControl
from producers.spool import Spool, SpoolLimits, scan_spool
from producers.spool.reading import SegmentReader
from schemas.announcement import is_newer
from schemas.errors import StateError
from schemas.frame import Encoding, encode_frame, open_message, sign_message
from schemas.identity import CameraId, Identity
from schemas.keys import derive_camera_key
from schemas.limits import MAX_BROKER_BYTES
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, RAW, Command, Meta, Status
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.waiting import until

pytestmark = pytest.mark.brokers

QUICK = LinkSettings(
    keepalive_s=1, grace_s=0.3, retry_s=0.5, retry_max_s=2.0, ledger_every_s=0.5, connect_timeout_s=1.0
)
PICTURE = np.zeros((16, 16, 3), np.uint8)
_names = (f"site/cam-{number}" for number in range(1000))


class Camera:
    """A publisher with a spool of its own, fed by the test."""

    def __init__(
        self,
        folder: Path,
        broker: tuple[str, int],
        camera_id: CameraId,
        frames: int,
        link: LinkSettings,
        limits: SpoolLimits,
    ) -> None:
        self.key = derive_camera_key(SECRET, camera_id)
        self.camera_id = camera_id
        self.spool = Spool(folder, camera_id, limits)
        self.control = CameraControl(folder, self.key, Encoding())
        self.broker = Broker(*broker, threads=2)
        self.publisher = Publisher(
            self.key,
            self.spool,
            self.control,
            lambda: Meta(install_id=self.spool.install_id, dropped_per_block=self.control.encoding.dropped_per_block),
            self.broker,
            WindowSettings(frames=frames),
            link,
            Instruments.on(CollectorRegistry()),
        )
        self.on_the_way_peak = 0
        self._ticking = asyncio.create_task(self._tick())

    def publish(self, count: int) -> None:
        for _ in range(count):
            boot_id, seq = self.spool.current.boot_id, self.spool.current.next
            now_ms = time.time_ns() // 10**6
            payload = encode_frame(self.key, boot_id, seq, now_ms, PICTURE, self.control.encoding)
            self.publisher.publish(payload, seq, now_ms, PICTURE.nbytes)

    def identities(self, *seqs: int) -> list[Identity]:
        return [Identity(self.camera_id, self.spool.current.boot_id, seq) for seq in seqs]

    async def _tick(self) -> None:
        while True:
            self.publisher.tick(time.monotonic())
            self.on_the_way_peak = max(self.on_the_way_peak, self.publisher.on_the_way)
            await asyncio.sleep(0.05)  # a camera's own clock

    async def drain(self) -> None:
        self.publisher.finish()
        await until(lambda: self.spool.drained)

    async def close(self) -> None:
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        await self.publisher.close(1.0)
        self.spool.close()
        self.broker.close()


@pytest.fixture
def broker(mosquitto: Mosquitto) -> tuple[str, int]:
    return mosquitto.host, mosquitto.port


@pytest.fixture
def camera_id() -> CameraId:
    return CameraId(next(_names))


@asynccontextmanager
async def camera(
    folder: Path,
    broker: tuple[str, int],
    camera_id: CameraId,
    frames: int = 256,
    link: LinkSettings = QUICK,
    limits: SpoolLimits | None = None,
) -> AsyncIterator[Camera]:
    made = Camera(folder, broker, camera_id, frames, link, limits or SpoolLimits())
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def watching(broker: tuple[str, int], confirming: Callable[[Identity], bool] = lambda _: True) -> Iterator[FakeBridge]:
    with FakeBridge(broker, confirming) as bridge:
        yield bridge


async def test_confirmed_frames_leave_the_spool_and_the_closing_ledger_tells_all(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(40)
            await cam.drain()
            ledger = bridge.ledgers[camera_id, cam.spool.current.boot_id]
            assert set(bridge.received) == set(cam.identities(*range(40)))
            assert max(bridge.received.values()) == 1
            assert (ledger.first, ledger.next, ledger.closed, ledger.frames_resent) == (0, 40, True, 0)
        status = mqtt_topic(camera_id, Channel.STATUS)
        await until(lambda: Status.FromString(bridge.topics[status]).state == OFFLINE)


async def test_what_a_later_confirmation_passed_over_is_sent_again_and_nothing_else(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    dropped = {3, 4, 9}
    with watching(broker, lambda frame: frame.seq not in dropped or bridge.received[frame] > 1) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(20)
            await cam.drain()
            again = {frame.seq for frame, times in bridge.received.items() if times > 1}
            boot_id = cam.spool.current.boot_id
            await until(lambda: bridge.ledgers[camera_id, boot_id].frames_resent == 3)
            assert again == dropped
            assert bridge.ledgers[camera_id, boot_id].bytes_resent > 3 * PICTURE.nbytes // 2


async def test_a_frame_that_the_medium_damages_is_shed_and_those_behind_it_are_sent(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with watching(broker, lambda _: confirming) as bridge:
        async with camera(tmp_path, broker, camera_id, frames=2) as cam:
            cam.publish(10)
            frame = cam.spool.get((cam.spool.current.boot_id, 5))
            assert frame is not None
            with frame.segment.path.open("r+b") as file:
                file.seek(frame.offset + frame.length // 2)
                file.write(b"decay")
            confirming = True
            await cam.drain()
            assert set(bridge.received) == set(cam.identities(0, 1, 2, 3, 4, 6, 7, 8, 9))
            [shed] = bridge.ledgers[camera_id, cam.spool.current.boot_id].shed
            assert (shed.first, shed.last) == (5, 5)


async def test_without_confirmations_the_window_bounds_what_is_sent_and_retries_stay_rare(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with watching(broker, lambda _: confirming) as bridge:
        async with camera(tmp_path, broker, camera_id, frames=16) as cam:
            cam.publish(100)
            await asyncio.sleep(2.0)  # what is not sent again and again takes time to show
            assert len(bridge.received) == 16
            assert cam.publisher.on_the_way == 16
            assert sum(bridge.received.values()) <= 16 + 3  # retries at 0.5 s and 1.5 s, and one of leeway
            assert not cam.publisher.has_room
            confirming = True
            bridge.confirm(list(bridge.received))
            await cam.drain()
            assert set(bridge.received) == set(cam.identities(*range(100)))
            assert cam.on_the_way_peak == 16


async def test_a_confirmation_that_is_not_signed_or_names_strangers_frees_nothing(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with watching(broker, lambda _: False) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(4)
            await until(lambda: len(bridge.received) == 4)
            confirm = mqtt_topic(camera_id, Channel.CONFIRM)
            bridge.publish(confirm, b"\xff not a message")
            bridge.publish(confirm, b"")
            bridge.confirm([Identity(camera_id, 12345, 0), *cam.identities(77)])
            # Messages of one publisher on one topic come in order: with this one, those before it have come.
            bridge.confirm(cam.identities(3))
            await until(lambda: cam.spool.frames < 4)
            assert cam.spool.frames == 3
            bridge.confirm(cam.identities(0, 1, 2))
            await until(lambda: cam.spool.frames == 0)


async def test_a_killed_broker_that_forgets_everything_loses_nothing(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with watching(broker, lambda _: confirming) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(30)
            await until(lambda: len(bridge.received) == 30)
            await asyncio.to_thread(mosquitto.kill)
            cam.publish(30)
            await until(lambda: not cam.publisher.link.up)
            confirming = True
            await asyncio.to_thread(mosquitto.start)
            await cam.drain()
            assert bridge.confirmed == set(cam.identities(*range(60)))


async def test_a_hanging_broker_is_noticed_and_the_camera_goes_on_spooling(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, frames=8) as cam:
            await until(lambda: cam.publisher.link.up)
            await asyncio.to_thread(mosquitto.pause)
            started = time.monotonic()
            stalls = []
            while cam.publisher.link.up or time.monotonic() - started < 4:
                before = time.monotonic()
                cam.publish(1)
                await asyncio.sleep(0.05)  # the time that a turn of the loop takes is what is measured
                stalls.append(time.monotonic() - before)
                assert time.monotonic() - started < 15
            published = cam.spool.current.next
            assert cam.on_the_way_peak <= 8
            assert sorted(stalls)[len(stalls) // 2] < 0.5  # connecting again does not hold up the loop
            await asyncio.to_thread(mosquitto.resume)
            await cam.drain()
            assert bridge.confirmed == set(cam.identities(*range(published)))


async def test_a_spool_too_small_for_an_outage_sheds_the_oldest_and_says_how_many(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, limits=SpoolLimits(max_bytes=100_000)) as cam:
            await until(lambda: cam.publisher.link.up)
            cam.publisher.link.hold(True)
            await until(lambda: not cam.publisher.link.up)
            cam.publish(400)
            cam.publisher.link.hold(False)
            await cam.drain()
            [boot] = scan_spool(tmp_path)
            ledger = bridge.ledgers[camera_id, boot.boot_id]
            shed = {seq for part in ledger.shed for seq in range(part.first, part.last + 1)}
            recorded = {frame.seq for frame in bridge.confirmed}
            assert shed
            assert shed == set(range(max(shed) + 1))
            assert shed | recorded == set(range(400))
            assert not shed & recorded


async def test_frames_of_an_earlier_process_are_sent_with_its_boot_id(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    async with camera(tmp_path, broker, camera_id) as first:
        first.publisher.link.hold(True)
        first.publish(5)
        expected = first.identities(*range(5))
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as second:
            second.publish(5)
            await second.drain()
            assert bridge.confirmed == {*expected, *second.identities(*range(5))}
            old = bridge.ledgers[camera_id, expected[0].boot_id]
            assert (old.next, old.closed) == (5, True)
            assert [boot.boot_id for boot in scan_spool(tmp_path)] == [second.spool.current.boot_id]


async def test_a_ledger_is_sent_again_until_it_is_confirmed(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with watching(broker) as bridge:
        bridge.confirming_ledgers = False
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(3)
            cam.publisher.finish()
            await until(lambda: cam.spool.frames == 0 and bridge.ledgers[camera_id, cam.spool.current.boot_id].closed)
            assert not cam.spool.drained
            bridge.confirming_ledgers = True
            await until(lambda: cam.spool.drained)


async def test_two_devices_with_one_name_are_both_told_and_both_keep_their_connection(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status = mqtt_topic(camera_id, Channel.STATUS)
    with watching(broker) as bridge:
        async with camera(tmp_path / "a", broker, camera_id) as first:
            await until(lambda: status in bridge.topics and Status.FromString(bridge.topics[status]).state == ONLINE)
            async with camera(tmp_path / "b", broker, camera_id) as second:
                await until(lambda: first.publisher.presence.degraded and second.publisher.presence.degraded)
                first.publish(5)
                second.publish(5)
                await until(lambda: first.spool.frames == second.spool.frames == 0)
                assert Status.FromString(bridge.topics[status]).state == DEGRADED
                assert (first.publisher.link.connections, second.publisher.link.connections) == (1, 1)
            await until(lambda: not first.publisher.presence.degraded)
            await until(lambda: Status.FromString(bridge.topics[status]).state == ONLINE)


async def test_a_broken_connection_publishes_the_will_and_the_next_one_takes_it_back(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status, meta = mqtt_topic(camera_id, Channel.STATUS), mqtt_topic(camera_id, Channel.META)
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics and Status.FromString(bridge.topics[status]).state == ONLINE)
            assert Meta.FromString(bridge.topics[meta]).install_id == cam.spool.install_id
            cam.publisher.link.hold(True)
            await until(lambda: Status.FromString(bridge.topics[status]).state == OFFLINE)
            cam.publisher.link.hold(False)
            await until(lambda: Status.FromString(bridge.topics[status]).state == ONLINE)


async def test_commands_change_frames_to_come_unless_they_are_older_or_forged(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    topic = mqtt_topic(camera_id, Channel.SETTINGS)
    with watching(broker) as bridge:
        key = bridge.keys.current(camera_id)
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(1)
            bridge.publish(
                topic, sign_message(key, Command(issued_ms=100, dropped_per_block=32, probe_share=0.5)), retain=True
            )
            await until(lambda: cam.control.encoding == Encoding(32, 0.5, RAW))
            cam.publish(1)
            bridge.publish(topic, sign_message(key, Command(issued_ms=99, dropped_per_block=8)))
            forged = sign_message(
                derive_camera_key(b"another fleet's secret", camera_id), Command(issued_ms=200, enabled=False)
            )
            bridge.publish(topic, forged)
            bridge.publish(topic, sign_message(key, Command(issued_ms=300, dropped_per_block=64)))
            bridge.publish(topic, sign_message(key, Command(issued_ms=101, enabled=False)))
            await until(lambda: not cam.control.enabled)
            assert cam.control.encoding == Encoding(32, 0.5, RAW)
            await cam.drain()
            sizes = [bridge.frames[frame].dropped_per_block for frame in cam.identities(0, 1)]
            assert sizes == [16, 32]
    assert not CameraControl(tmp_path, derive_camera_key(SECRET, camera_id), Encoding()).enabled  # a restart keeps it


async def test_a_spool_that_cannot_be_read_for_a_time_makes_no_frame_be_published_twice(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise StateError("too many open files")

    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            with monkeypatch.context() as patch:
                patch.setattr(SegmentReader, "read", fail)
                cam.publish(3)  # not connected yet: only the last one need not be read back
                await until(lambda: cam.publisher.link.up)
                cam.publish(3)
                assert cam.spool.current.next == 6
            await cam.drain()
            assert bridge.confirmed == set(cam.identities(*range(6)))
            assert cam.publisher.link.connections == 1


async def test_the_ledger_says_how_far_everything_is_confirmed_while_the_camera_runs(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    held = {7}
    with watching(broker, lambda frame: frame.seq not in held) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(10)
            place = camera_id, cam.spool.current.boot_id
            await until(lambda: place in bridge.ledgers and bridge.ledgers[place].confirmed_to == 7)
            held.clear()
            await until(lambda: bridge.ledgers[place].confirmed_to == 10)
            await cam.drain()
            last = bridge.ledgers[place]
            assert (last.closed, last.next, last.confirmed_to) == (True, 10, 10)


async def test_what_was_said_of_a_camera_is_signed_by_it_and_in_order_last_will_included(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status, meta = mqtt_topic(camera_id, Channel.STATUS), mqtt_topic(camera_id, Channel.META)
    with watching(broker) as bridge:

        def said() -> Status:
            return open_message(Status, camera_id, bridge.topics[status], bridge.keys)

        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics and said().state == ONLINE and meta in bridge.topics)
            open_message(Meta, camera_id, bridge.topics[meta], bridge.keys)
            online = said()
            cam.publisher.link.hold(True)
            await until(lambda: said().state == OFFLINE)
            will = said()
            cam.publisher.link.hold(False)
            await until(lambda: said().state == ONLINE)
            again = said()
    await until(lambda: said().state == OFFLINE)
    order = [online, will, again, said()]
    for earlier, later in pairwise(order):
        assert is_newer(later, earlier, 0)
        assert not is_newer(earlier, later, 0)


async def test_a_forged_status_does_not_make_a_camera_believe_that_another_bears_its_name(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    status = mqtt_topic(camera_id, Channel.STATUS)
    with watching(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status in bridge.topics)
            forged = Status(state=ONLINE, install_id="another", boot_id=1)
            bridge.publish(status, forged.SerializeToString())
            stranger = derive_camera_key(b"another fleet's secret", camera_id)
            bridge.publish(status, sign_message(stranger, forged))
            # Obeyed after the forged ones came: they are read in order.
            command = Command(issued_ms=1, dropped_per_block=32)
            bridge.publish(mqtt_topic(camera_id, Channel.SETTINGS), sign_message(cam.key, command))
            await until(lambda: cam.control.encoding.dropped_per_block == 32)
            assert not cam.publisher.presence.degraded


class Meter:
    """A relay before the broker that grants `receive_maximum` and takes its time to acknowledge."""

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
                    await asyncio.sleep(0.01)  # a broker that takes its time
                    self._open -= 1
                sink.write(bytes((first,)) + variable_length(len(body)) + body)
        sink.close()


def variable_length(length: int) -> bytes:
    """MQTT's variable byte integer."""
    found = bytearray()
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    return bytes((*found, length))


async def test_ledgers_of_many_old_boots_stay_within_what_the_broker_takes_at_once(
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
        with watching(broker) as bridge:
            async with camera(tmp_path, address, camera_id) as cam:
                await cam.drain()
                assert cam.publisher.link.connections == 1
                assert len(bridge.ledgers) == 41
    finally:
        await meter.close()
    assert meter.peak <= 10
