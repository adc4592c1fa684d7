from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sqlite3
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import pytest
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from aiokafka.structs import TopicPartition
from prometheus_client import CollectorRegistry

from consumers.cameras.camera import Camera
from consumers.cameras.snapshots import saved_camera
from consumers.recorder.recorder import run_recorder
from consumers.records.batch import Partition, Span
from consumers.records.log import ASSUMED_BYTES, Log
from consumers.records.membership import Membership, Reassigned
from consumers.settings import ProbePlan, RecorderSettings
from infra.local.kafka import Kafka
from schemas.errors import ConfigError
from schemas.messages.camera_status import turn
from schemas.pointillist_pb2 import ONLINE, Alert, Ledger, Meta, Status, Verdict
from schemas.ranges import RangeSet
from schemas.runtime.health import Health
from schemas.topics import RECORDED_GROUP
from schemas.transport.kafka.admin import Admin
from tests.consumers.recorder_rig import BOOT, CAMERA, KEYS, dead_letter, ledger, sign_as_processor, verdict
from tests.consumers.scene import WAIT_S, Scene
from tests.waiting import until


@pytest.mark.brokers
async def test_records_from_kafka_are_recorded_and_counted(scene: Scene) -> None:
    async with scene.recorder():
        await scene.event(Status(state=ONLINE, boot_id=BOOT, turn=turn(1, 1)))
        await scene.verdicts(verdict(n) for n in range(10))
        await scene.verdicts([verdict(4), verdict(0, captured_ms=2**52)], camera="lab/gate")
        await scene.verdicts([verdict(4)])
        await scene.letter(sign_as_processor(dead_letter(11, verified=True)))
        await scene.letter(dead_letter(12, verified=False, error="<b>").SerializeToString())
        await scene.letter(b"\xff\xff not a dead letter")
        await scene.event(ledger(2, 13, [(10, 10)]))
        await scene.event(Alert())
        await until(lambda: scene.metric("pointillist_recorded_frames_total", outcome="duplicate") == 1)
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="malformed") == 2)
        await until(lambda: scene.metric("pointillist_recorded_frames_total", outcome="recorded") == 12)

        with contextlib.closing(sqlite3.connect(scene.settings.database.removeprefix("sqlite:///"))) as other:

            def saved_cameras() -> dict[str, Camera]:
                rows = other.execute("SELECT camera, state FROM camera_snapshots").fetchall()
                return {name: camera for name, state in rows if (camera := saved_camera(name, state)) is not None}

            await until(
                lambda: {name: camera.frames for name, camera in saved_cameras().items()} == {CAMERA: 10, "lab/gate": 2}
            )
            last = saved_cameras()[CAMERA].last
        assert last is not None
        assert (last.class_name, last.width, last.height, last.channels) == ("stop", 32, 24, 3)

        assert scene.metric("pointillist_negative_latency_total") == 1
        assert scene.metric("pointillist_end_to_end_seconds_count") == 11
        assert scene.metric("pointillist_truth_frames_total", result="correct") == 12
        await until(lambda: scene.metric("pointillist_store_bytes", store="database") > 0)
        await until(lambda: scene.metric("pointillist_camera_age_seconds", camera_id=CAMERA) > 0)
        await until(lambda: scene.metric("pointillist_recorder_lag_records") == 0)
    with scene.records() as records:
        assert records.dead_lettered(CAMERA, BOOT) == RangeSet([(11, 11)])
        assert records.foreign_count() == 3
        (row,) = records.ledgers()
        assert (row.revision, row.next) == (2, 13)
        assert [(shed.first, shed.last) for shed in Ledger.FromString(row.message).shed] == [(10, 10)]


@pytest.mark.brokers
async def test_only_signed_events_change_the_plan_of_probes_and_its_requests_are_signed(scene: Scene) -> None:
    def meta(fps: float, message: int) -> Meta:
        return Meta(boot_id=BOOT, probe_share=0.1, frames_per_second=fps, dropped_per_block=16, turn=turn(1, message))

    gate = "lab/gate"
    async with scene.recorder():
        await scene.verdicts(verdict(n) for n in range(3))
        await scene.verdicts((verdict(n) for n in range(3)), gate)
        await scene.event(meta(0.5, 1))
        for forged in (meta(math.nan, 2), Meta(boot_id=BOOT, turn=turn(9, 9)), ledger(9, 999_900)):
            await scene.unsigned(forged)
            await scene.unsigned(forged, gate)
        await scene.event(meta(math.nan, 1), gate)  # signed by its camera, which alone is affected
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="bad_tag") == 6)
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="malformed") == 1)
        camera, request = await scene.request()
    assert (camera, request.probe_share) == (CAMERA, ProbePlan().new_share)
    with scene.records() as records:
        assert list(records.ledgers()) == []


@pytest.mark.brokers
async def test_a_recorder_that_is_killed_twice_records_and_alerts_exactly_once(scene: Scene) -> None:
    rng = random.Random(3)
    cameras = [f"lab/cam{n}" for n in range(4)]
    kills, quarter = 2, 100
    frames = (kills + 1) * quarter
    restarted = [asyncio.Event() for _ in range(kills)]

    def probe_or_frame(seq: int) -> Verdict:
        return verdict(seq, flagged=60 <= seq < 80 if seq % 2 else None, whole=seq % 2 == 1)

    async def publish() -> None:
        for start in range(0, frames, 10):
            if start and start % quarter == 0:
                await restarted[start // quarter - 1].wait()
            for camera in cameras:
                repeats = [rng.randrange(start) for _ in range(2)] if start else []
                await scene.verdicts(map(probe_or_frame, [*range(start, start + 10), *repeats]), camera)
            await asyncio.sleep(0.05)  # a slow stream, so that a kill comes between two transactions

    def recorded() -> int:
        return sum(len(scene.recorded(camera)) for camera in cameras)

    publishing = asyncio.create_task(publish())
    process = scene.process()
    try:
        for killed, event in enumerate(restarted):
            await until(lambda: recorded() > len(cameras) * quarter * killed)  # noqa: B023
            process.kill()
            await asyncio.to_thread(process.wait)
            event.set()
            process = scene.process()
        await publishing
        await until(lambda: all(len(scene.recorded(camera)) == frames for camera in cameras))

        def is_complete() -> bool:
            with scene.records() as records:
                return records.duplicates() == len(cameras) * 2 * (frames // 10 - 1) and records.alert_count() == 4

        await until(is_complete)
        process.terminate()
        assert await asyncio.to_thread(process.wait, WAIT_S) == 0
    finally:
        publishing.cancel()
        process.kill()
        process.wait()
    with scene.records() as records:
        assert records.byte_sums().frames == 4 * frames
        assert records.strip_counts() == (4 * frames // 2, 4 * 10, 0)
    alerts = await scene.alerts()
    assert {alert.camera_id for alert in alerts} == set(cameras)
    assert len({alert.alert_id for alert in alerts}) == 4
    assert {(alert.checked, alert.flagged) for alert in alerts} == {(2, 2)}


@pytest.mark.brokers
async def test_an_unpublished_alert_is_published_after_a_restart(scene: Scene) -> None:
    attack = [verdict(n, flagged=True, whole=True) for n in range(12)]
    async with scene.recorder(alerts_topic="no such topic", shutdown_s=1.0):
        await scene.verdicts(attack)
        await until(lambda: scene.metric("pointillist_alerts_total", kind="strip") == 1)
    assert await scene.alerts() == []
    async with scene.recorder():
        await until(lambda: sqlite_value(scene, "SELECT published FROM alerts") == 1)
        await scene.verdicts(attack)
        await until(lambda: scene.metric("pointillist_recorded_frames_total", outcome="duplicate") == 12)
    (alert,) = await scene.alerts()
    assert alert.flagged == alert.checked


def sqlite_value(scene: Scene, query: str) -> object:
    """Return the first value of a query's result, None without a row."""
    connection = sqlite3.connect(scene.settings.database.removeprefix("sqlite:///"))
    with contextlib.closing(connection):
        row = connection.execute(query).fetchone()
        return row[0] if row else None


@pytest.mark.brokers
async def test_a_locked_database_pauses_consumption_and_loses_nothing(scene: Scene) -> None:
    async with scene.recorder():
        await scene.verdicts(verdict(n) for n in range(5))
        await until(lambda: len(scene.recorded()) == 5)
        with contextlib.closing(sqlite3.connect(scene.settings.database.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            await scene.verdicts(verdict(n) for n in range(5, 50))
            await until(lambda: not scene.health.report()[1]["database"]["ok"])
            assert len(scene.recorded()) == 5
            other.execute("ROLLBACK")
        await until(lambda: len(scene.recorded()) == 50)
        await until(lambda: scene.health.report()[0])
    with scene.records() as records:
        assert records.duplicates() == 0


@pytest.mark.brokers
@pytest.mark.parametrize("in_group", [False, True])
async def test_offsets_for_the_bridges_are_committed_only_for_what_is_recorded(scene: Scene, in_group: bool) -> None:
    partition = TopicPartition(scene.settings.verdicts_topic, 0)
    group = f"readers-{partition.topic}" if in_group else None
    async with Admin(scene.settings.kafka) as admin, scene.recorder(group=group):

        async def committed() -> tuple[int, str]:
            with contextlib.suppress(KafkaError):  # Kafka has no coordinator before the first group
                return (await admin.committed_with_notes(RECORDED_GROUP)).get(partition, (0, ""))
            return 0, ""

        async def is_committed(expected: int) -> bool:
            return (await committed())[0] == expected

        async def is_committed_before_the_first_verdict() -> bool:
            return await committed() == (0, str(ASSUMED_BYTES))

        await until(is_committed_before_the_first_verdict)
        await scene.verdicts(verdict(n) for n in range(5))
        await until(partial(is_committed, 5), "five committed")
        (_, note), size = await committed(), len(sign_as_processor(verdict(0))) + len(CAMERA)
        assert abs(int(note) - size) < 10
        with contextlib.closing(sqlite3.connect(scene.settings.database.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            await scene.verdicts(verdict(n) for n in range(5, 50))
            await until(lambda: not scene.health.report()[1]["database"]["ok"])
            assert await is_committed(5)
            other.execute("ROLLBACK")
        await until(partial(is_committed, 50), "all committed")
        letters = TopicPartition(scene.settings.dead_letters_topic, 0)

        async def letter_is_committed() -> bool:
            return (await admin.committed_with_notes(RECORDED_GROUP)).get(letters, (0, ""))[0] == 1

        await scene.letter(dead_letter(1, verified=False).SerializeToString())
        await until(letter_is_committed, "the dead letter committed")


@pytest.mark.brokers
async def test_a_recorder_continues_after_kafka_was_killed(scene: Scene, kafka: Kafka) -> None:
    async with scene.recorder():
        await scene.verdicts(verdict(n) for n in range(5))
        await until(lambda: len(scene.recorded()) == 5)
        await asyncio.to_thread(kafka.kill)
        await until(lambda: not scene.health.report()[1]["kafka"]["ok"])
        await asyncio.to_thread(kafka.start)
        await scene.verdicts(verdict(n) for n in range(5, 9))
        await until(lambda: len(scene.recorded()) == 9)
        await until(lambda: scene.health.report()[0])
    with scene.records() as records:
        assert records.duplicates() == 0


@pytest.mark.brokers
async def test_a_group_that_rejects_a_recorder_during_a_rebalance_ends_its_wait_for_partitions(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first_offsets(_: Collection[str], spans: Mapping[Partition, Span]) -> Mapping[Partition, int]:
        return {partition: begin for partition, (begin, _) in spans.items()}

    group, topic = scene.settings.verdicts_topic, scene.settings.verdicts_topic
    membership = Membership(group)
    mine, other = (Log(scene.settings, (topic,), 2**20, of) for of in (membership, Membership(group)))
    join = CoordinatorGroupRebalance.perform_group_join
    joined: list[CoordinatorGroupRebalance] = []
    waits = asyncio.Event()

    async def join_once(rebalance: CoordinatorGroupRebalance) -> object:
        joined.append(rebalance)
        if len(joined) > 1:
            await waits.wait()
            raise GroupAuthorizationFailedError(group)
        return await join(rebalance)

    try:
        await mine.open()
        await mine.resume(first_offsets)
        monkeypatch.setattr(CoordinatorGroupRebalance, "perform_group_join", join_once)
        joining = asyncio.create_task(other.open())
        await until(lambda: not membership.is_settled, "the rebalance to begin")
        with pytest.raises(Reassigned):
            await mine.gather(0, 1)
        asyncio.get_running_loop().call_later(1, waits.set)
        with pytest.raises(GroupAuthorizationFailedError):
            await asyncio.wait_for(mine.resume(first_offsets), WAIT_S / 3)
        await joining
    finally:
        await mine.close()
        await other.close()


async def test_a_recorder_without_kafka_waits_and_stops_on_request(tmp_path: Path) -> None:
    settings = RecorderSettings(
        kafka="127.0.0.1:1",
        database=f"sqlite:///{tmp_path}/new/records.sqlite",
        quarantine=str(tmp_path / "quarantine"),
    )
    health, stop = Health(), asyncio.Event()
    task = asyncio.create_task(run_recorder(settings, KEYS, registry=CollectorRegistry(), health=health, stop=stop))
    await until(lambda: health.report()[1].get("database", {}).get("ok") is True)
    await until(lambda: health.report()[1]["kafka"]["detail"] != "not connected yet")
    assert not task.done()
    assert not health.report()[0]
    stop.set()
    await asyncio.wait_for(task, WAIT_S)


@pytest.mark.parametrize(
    "invalid",
    [
        {"database": "sqlite://"},
        {"database": "mysql://user:secret@host/name"},
        {"database": "nonsense"},
        {"quarantine": "nosuchprotocol://bucket"},
    ],
)
async def test_an_invalid_setting_is_reported_without_its_secrets(tmp_path: Path, invalid: dict[str, str]) -> None:
    valid = {"database": f"sqlite:///{tmp_path}/records.sqlite", "quarantine": str(tmp_path)}
    settings = RecorderSettings.model_validate({"kafka": "127.0.0.1:1"} | valid | invalid)
    with pytest.raises(ConfigError, match="expected") as caught:
        await run_recorder(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
    assert "secret" not in str(caught.value)
