"""A publisher on a real broker: confirmations, resends, outages, commands, and shedding."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from infra.local.mosquitto import Mosquitto
from producers.publisher.commands import CameraControl
from producers.spool import SpoolLimits, scan_spool
from producers.spool.reading import SegmentReader
from schemas.errors import StateError
from schemas.identity import CameraId, Identity
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, open_own_message, sign_message
from schemas.pointillist_pb2 import OFFLINE, RAW, Command, Meta, Status
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.publisher_rig import ONCE, PICTURE, QUICK, STEADY, camera
from tests.producers.scripted_broker import GRANTED_QOS_1, NOT_AUTHORIZED, scripted_broker
from tests.waiting import until

pytestmark = pytest.mark.brokers


async def test_confirmed_frames_leave_the_spool_and_are_counted_in_the_closing_ledger(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, link=ONCE) as cam:
            cam.publish(40)
            await cam.drain()
            ledger = bridge.ledgers[camera_id, cam.spool.current.boot_id]
            assert set(bridge.received) == set(cam.identities(*range(40)))
            assert max(bridge.received.values()) == 1
            assert (ledger.first, ledger.next, ledger.closed, ledger.frames_resent) == (0, 40, True, 0)
        status = mqtt_topic(camera_id, Channel.STATUS)
        await until(lambda: Status.FromString(bridge.topics[status]).state == OFFLINE)


@pytest.mark.parametrize("answered", [False, True])
async def test_acknowledged_frames_that_are_never_confirmed_are_explained_once_in_the_log(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, answered: bool
) -> None:
    patient = QUICK.model_copy(update={"first_answer_s": 3.0 if answered else 0.5})
    with capture_logs() as logs, FakeBridge(broker, lambda _: answered) as bridge:
        bridge.confirming_ledgers = answered
        async with camera(tmp_path, broker, camera_id, link=patient) as cam:
            cam.publish(3)
            await until(lambda: len(bridge.received) == 3)
            await until(lambda: len(cam.publisher._window) == 0 if answered else bool(logs))
            await asyncio.sleep(3.5 if answered else 0.7)  # longer than the interval after which it would log again
    found = [each["reason"] for each in logs if each["event"] == "nothing_confirmed"]
    assert len(found) == (0 if answered else 1)
    assert all(f"the key does not belong to {camera_id}" in each for each in found)


async def test_a_rejected_subscription_is_logged_once_and_retried(tmp_path: Path, camera_id: CameraId) -> None:
    often = STEADY.model_copy(update={"reconnect_max_s": 0.1})
    with capture_logs() as logs:
        async with scripted_broker() as broker:
            broker.suback = NOT_AUTHORIZED
            async with camera(tmp_path, ("127.0.0.1", broker.port), camera_id, link=often) as cam:
                await until(lambda: len(broker.subscribed) > 2)
                assert cam.publisher.link.subscription_refused
                broker.suback = GRANTED_QOS_1
                await until(lambda: not cam.publisher.link.subscription_refused)
                assert len(broker.connects) == 1
    assert [(each["event"], each["reason"]) for each in logs] == [("mqtt_subscription_refused", "Not authorized")]


async def test_a_camera_announces_itself_again_when_its_clock_is_set(
    tmp_path: Path, camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_ns, step_ms = time.time_ns, 24 * 3600 * 1000
    async with scripted_broker() as broker, camera(tmp_path, ("127.0.0.1", broker.port), camera_id, link=QUICK) as cam:

        def announced_ms() -> list[int]:
            by_topic = [(topic.rsplit("/", 1)[1], payload) for topic, payload, _ in broker.published]
            metas = [open_own_message(Meta, cam.key, each).turn for name, each in by_topic if name == Channel.META]
            statuses = [
                open_own_message(Status, cam.key, each).turn for name, each in by_topic if name == Channel.STATUS
            ]
            return sorted(turn.at_ms for turn in metas + statuses)

        await until(lambda: len(announced_ms()) == 2, "meta and status")
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + step_ms * 10**6)
        await until(lambda: len(announced_ms()) == 4, "both announced again")
        assert min(announced_ms()[2:]) - max(announced_ms()[:2]) > step_ms - 60_000


async def test_frames_without_a_subscriber_are_resent_without_a_grace_once_a_bridge_connects(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    never = ONCE.model_copy(update={"grace_s": 600.0, "retry_s": 600.0})
    async with camera(tmp_path, broker, camera_id, link=never) as cam:
        cam.publish(5)
        await until(lambda: len(cam.publisher._window) == 5 and not cam.publisher._unacknowledged)
        with FakeBridge(broker) as bridge:
            cam.publish(1)
            await cam.drain()
            assert dict(bridge.received) == dict.fromkeys(cam.identities(*range(6)), 1)


async def test_only_frames_older_than_a_later_confirmation_are_resent(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    dropped = {3, 4, 9}
    with FakeBridge(broker, lambda frame: frame.seq not in dropped or bridge.received[frame] > 1) as bridge:
        async with camera(tmp_path, broker, camera_id, link=ONCE) as cam:
            cam.publish(20)
            await cam.drain()
            again = {frame.seq for frame, times in bridge.received.items() if times > 1}
            boot_id = cam.spool.current.boot_id
            await until(lambda: bridge.ledgers[camera_id, boot_id].frames_resent == 3)
            assert again == dropped
            assert bridge.ledgers[camera_id, boot_id].bytes_resent > 3 * PICTURE.nbytes // 2


async def test_a_damaged_frame_is_shed_and_later_frames_are_sent(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with FakeBridge(broker, lambda _: confirming) as bridge:
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


async def test_the_window_bounds_unconfirmed_frames_and_retries_stay_rare(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with FakeBridge(broker, lambda _: confirming) as bridge:
        async with camera(tmp_path, broker, camera_id, frames=16) as cam:
            begun = time.monotonic()
            cam.publish(100)
            await until(lambda: len(bridge.received) == 16)
            await asyncio.sleep(2.0)  # resends in quick succession would take this long to show
            assert len(bridge.received) == 16
            assert len(cam.publisher._window) == 16
            # Retries at 0.5 s and 1.5 s, then every 2 s, and one more as tolerance.
            assert sum(bridge.received.values()) <= 16 + 3 + (time.monotonic() - begun) / 2
            assert not cam.publisher.has_room
            confirming = True
            bridge.confirm(list(bridge.received))
            await cam.drain()
            assert set(bridge.received) == set(cam.identities(*range(100)))
            assert cam.in_flight_peak == 16


async def test_unsigned_confirmations_and_confirmations_of_other_frames_free_nothing(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker, lambda _: False) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(4)
            await until(lambda: len(bridge.received) == 4)
            confirm = mqtt_topic(camera_id, Channel.CONFIRM)
            bridge.publish(confirm, b"\xff not a message")
            bridge.publish(confirm, b"")
            bridge.confirm([Identity(camera_id, 12345, 0), *cam.identities(77)])
            # The broker keeps the order of one publisher's messages on a topic: this one arrives after all before it.
            bridge.confirm(cam.identities(3))
            await until(lambda: cam.spool.frames < 4)
            assert cam.spool.frames == 3
            bridge.confirm(cam.identities(0, 1, 2))
            await until(lambda: cam.spool.frames == 0)


async def test_a_killed_broker_without_persistence_loses_no_frame(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    confirming = False
    with FakeBridge(broker, lambda _: confirming) as bridge:
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


async def test_a_hanging_broker_is_detected_and_the_camera_continues_to_spool(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, frames=8) as cam:
            await until(lambda: cam.publisher.link.up)
            await asyncio.to_thread(mosquitto.pause)
            started = time.monotonic()
            stalls = []
            while cam.publisher.link.up or time.monotonic() - started < 4:
                before = time.monotonic()
                cam.publish(1)
                await asyncio.sleep(0.05)  # the duration of one turn of the loop is measured
                stalls.append(time.monotonic() - before)
                assert time.monotonic() - started < 60
            published = cam.spool.current.next
            assert cam.in_flight_peak <= 8
            assert sorted(stalls)[len(stalls) // 2] < 0.5  # a reconnect does not block the loop
            await asyncio.to_thread(mosquitto.resume)
            await cam.drain()
            assert bridge.confirmed == set(cam.identities(*range(published)))


async def test_a_spool_too_small_for_an_outage_sheds_and_counts_the_oldest_frames(
    tmp_path: Path, mosquitto: Mosquitto, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, limits=SpoolLimits(max_bytes=100_000)) as cam:
            await until(lambda: cam.publisher.link.up)
            cam.cut(True)
            await until(lambda: not cam.publisher.link.up)
            cam.publish(400)
            cam.cut(False)
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
        first.cut(True)
        first.publish(5)
        expected = first.identities(*range(5))
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as second:
            second.publish(5)
            await second.drain()
            assert bridge.confirmed == {*expected, *second.identities(*range(5))}
            old = bridge.ledgers[camera_id, expected[0].boot_id]
            assert (old.next, old.closed) == (5, True)
            assert [boot.boot_id for boot in scan_spool(tmp_path)] == [second.spool.current.boot_id]


async def test_commands_apply_to_later_frames_unless_they_are_outdated_or_forged(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    topic = mqtt_topic(camera_id, Channel.SETTINGS)
    with FakeBridge(broker) as bridge:
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
    assert not CameraControl(
        tmp_path, derive_camera_key(SECRET, camera_id), Encoding()
    ).enabled  # the pause survives a restart


async def test_a_temporarily_unreadable_spool_causes_no_duplicate_frame(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise StateError("too many open files")

    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id, link=STEADY) as cam:
            with monkeypatch.context() as patch:
                patch.setattr(SegmentReader, "read", fail)
                cam.publish(3)  # not connected yet: all but the last one must be read back
                await until(lambda: cam.publisher.link.up)
                cam.publish(3)
                assert cam.spool.current.next == 6
            await cam.drain()
            assert bridge.confirmed == set(cam.identities(*range(6)))
            assert cam.publisher.link.connections == 1
