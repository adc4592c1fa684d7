from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from prometheus_client import CollectorRegistry

from consumers.database.queries import Records, open_records
from consumers.recorder import run_recorder
from consumers.settings import ProbePlan, RecorderSettings
from infra.local.kafka import Kafka
from schemas.announcement import turn
from schemas.errors import ConfigError, TryAgain
from schemas.evidence.rule import EvidenceRule
from schemas.frame import open_message
from schemas.identity import CameraId
from schemas.pointillist_pb2 import ONLINE, Alert, Meta, ProbeRequest, Status, Verdict
from schemas.ranges import RangeSet
from schemas.runtime import kafka_damage
from schemas.runtime.health import Health
from tests.conftest import TopicFactory
from tests.consumers.pages_rig import half_open
from tests.consumers.recorder_rig import BOOT, CAMERA, KEYS, SECRET, dead_letter, ledger, picture, signed, verdict
from tests.kafka_files import damage_batch, damage_length
from tests.waiting import until

RULE = EvidenceRule(patience_s=1)
WAIT_S = 60.0

PROGRAM = """
import asyncio, signal, sys
from prometheus_client import CollectorRegistry
from consumers.recorder import run_recorder
from consumers.settings import RecorderSettings
from schemas.runtime.health import Health
from schemas.keys import KeyRing

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = RecorderSettings.model_validate_json(sys.argv[1])
    keys = KeyRing(bytes.fromhex(sys.argv[2]))
    await run_recorder(settings, keys, registry=CollectorRegistry(), health=Health(), stop=stop)

asyncio.run(main())
"""


@dataclass
class Scene:
    """Fresh topics on a real Kafka, an empty SQLite database, and recorders on them."""

    settings: RecorderSettings
    producer: AIOKafkaProducer
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def recorder(self, **changed: object) -> AsyncIterator[asyncio.Task[None]]:
        """A recorder in this loop; told to stop at the end."""
        self.stop, self.registry, self.health = asyncio.Event(), CollectorRegistry(), Health()
        settings = self.settings.model_copy(update=changed)
        task = asyncio.create_task(
            run_recorder(settings, KEYS, registry=self.registry, health=self.health, stop=self.stop)
        )
        try:
            await until(lambda: self.health.report()[0] or task.done())
            yield task
        finally:
            self.stop.set()
            async with asyncio.timeout(WAIT_S):
                await task

    def process(self, descriptors: int = 1024, **changed: object) -> subprocess.Popen[bytes]:
        """A recorder in a process of its own, which may open so many files."""
        settings = self.settings.model_copy(update=changed)
        limit = f'ulimit -n {descriptors} && exec "$@"'
        program = [sys.executable, "-c", PROGRAM, settings.model_dump_json(), SECRET.hex()]
        return subprocess.Popen(["sh", "-c", limit, "sh", *program])

    async def verdicts(self, verdicts: Iterable[Verdict], camera: str = CAMERA) -> None:
        """Publish verdicts."""
        for made in verdicts:
            await self.producer.send(self.settings.verdicts_topic, made.SerializeToString(), key=camera.encode())
        await self.producer.flush()

    async def event(self, message: Any, camera: str = CAMERA) -> None:
        """Publish an event, signed where cameras sign it."""
        kind = [("ce_type", message.DESCRIPTOR.full_name.encode())]
        value = signed(message, camera) if "tag" in message.DESCRIPTOR.fields_by_name else message.SerializeToString()
        await self.producer.send_and_wait(self.settings.events_topic, value, key=camera.encode(), headers=kind)

    async def unsigned(self, message: Any, camera: str = CAMERA) -> None:
        """Publish an event that its camera has not signed."""
        kind = [("ce_type", message.DESCRIPTOR.full_name.encode())]
        value = message.SerializeToString()
        await self.producer.send_and_wait(self.settings.events_topic, value, key=camera.encode(), headers=kind)

    async def request(self) -> tuple[str, ProbeRequest]:
        """The first request to a camera on the events topic, verified as bridges do."""
        consumer = AIOKafkaConsumer(
            self.settings.events_topic, bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async with asyncio.timeout(WAIT_S):
                async for record in consumer:
                    if ("ce_type", b"pointillist.v1.ProbeRequest") in record.headers:
                        camera = CameraId(record.key.decode())
                        return camera, open_message(ProbeRequest, camera, record.value, KEYS)
        finally:
            await consumer.stop()
        raise AssertionError("the consumer has ended")

    async def letter(self, value: bytes) -> None:
        """Publish a record on the topic of the dead letters."""
        await self.producer.send_and_wait(self.settings.dead_letters_topic, value)

    def records(self) -> Records:
        """The read side."""
        return open_records(self.settings.database)

    def recorded(self, camera: str = CAMERA, boot: int = BOOT) -> RangeSet:
        """The recorded sequence numbers."""
        if not Path(self.settings.database.removeprefix("sqlite:///")).is_file():
            return RangeSet()
        try:
            with self.records() as records:
                return records.recorded(camera, boot)
        except Exception:  # the tables are being made
            return RangeSet()

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, 0 while it has none."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def alerts(self) -> list[Alert]:
        """Everything on the alerts topic."""
        consumer = AIOKafkaConsumer(
            self.settings.alerts_topic, bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            found: list[Alert] = []
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [Alert.FromString(record.value) for record in records]
            return found
        finally:
            await consumer.stop()


@pytest_asyncio.fixture
async def scene(kafka: Kafka, kafka_topics: TopicFactory, tmp_path: Path) -> AsyncIterator[Scene]:
    settings = RecorderSettings(
        kafka=kafka.bootstrap,
        database=f"sqlite:///{tmp_path}/records.sqlite",
        quarantine=str(tmp_path / "quarantine"),
        evidence=RULE,
        verdicts_topic=await kafka_topics(2),
        events_topic=await kafka_topics(1),
        dead_letters_topic=await kafka_topics(1),
        alerts_topic=await kafka_topics(1),
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        yield Scene(settings, producer)
    finally:
        await producer.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _get(url: str) -> tuple[int, str, bytes]:
    def get() -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return answer.status, answer.headers["content-type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read()

    return await asyncio.to_thread(get)


@pytest.mark.brokers
async def test_what_comes_over_kafka_is_recorded_shown_and_counted(scene: Scene) -> None:
    port = _free_port()
    jpeg = picture("JPEG", 24)
    async with scene.recorder(http=("127.0.0.1", port)):
        await scene.event(Status(state=ONLINE, boot_id=BOOT, turn=turn(1, 1)))
        await scene.verdicts(verdict(n, preview=jpeg if n == 9 else b"") for n in range(10))
        await scene.verdicts([verdict(4), verdict(0, captured_ms=2**52)], camera="lab/gate")
        await scene.verdicts([verdict(4)])
        await scene.letter(dead_letter(11, verified=True).SerializeToString())
        await scene.letter(dead_letter(12, verified=False, error="<b>").SerializeToString())
        await scene.letter(b"\xff\xff not a dead letter")
        await scene.event(ledger(2, 13, [(10, 10)]))
        await scene.event(Alert())
        await until(lambda: scene.metric("pointillist_recorded_frames_total", outcome="duplicate") == 1)
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="malformed") == 2)
        await until(lambda: scene.metric("pointillist_recorded_frames_total", outcome="recorded") == 12)

        _, _, body = await _get(f"http://127.0.0.1:{port}/cameras")
        door, gate = json.loads(body)
        assert (door["camera"], door["frames_recorded"], door["status"]) == (CAMERA, 10, "online")
        assert door["verdict"]["class"] == "stop"
        assert door["size"] == {"width": 32, "height": 24, "channels": 3}
        assert (gate["camera"], gate["frames_recorded"]) == ("lab/gate", 2)
        assert await _get(f"http://127.0.0.1:{port}/preview/{CAMERA}.jpg") == (200, "image/jpeg", jpeg)
        status, kind, body = await _get(f"http://127.0.0.1:{port}/preview/lab/gate.jpg")
        assert (status, kind) == (404, "application/json")
        assert "lab/gate" in json.loads(body)["error"]
        letters = json.loads((await _get(f"http://127.0.0.1:{port}/dead-letters"))[2])
        assert len(letters) == 4
        assert not any("payload" in letter for letter in letters)
        assert json.loads((await _get(f"http://127.0.0.1:{port}/alerts"))[2]) == []
        status, kind, page = await _get(f"http://127.0.0.1:{port}/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"http" not in page

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
        assert (row.revision, row.next, json.loads(row.shed)) == (2, 13, [[10, 10]])


@pytest.mark.brokers
async def test_only_what_cameras_signed_is_planned_with_and_what_is_asked_of_them_is_signed(scene: Scene) -> None:
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
        await scene.event(meta(math.nan, 1), gate)  # its camera has signed it, and is the only one to lose by it
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="bad_tag") == 6)
        await until(lambda: scene.metric("pointillist_dead_letters_total", stage="recorder", reason="malformed") == 1)
        camera, request = await scene.request()
    assert (camera, request.probe_share) == (CAMERA, ProbePlan().new_share)
    with scene.records() as records:
        assert records.ledgers() == []


@pytest.mark.brokers
async def test_killed_again_and_again_it_records_and_alerts_exactly_once(scene: Scene) -> None:
    rng = random.Random(3)
    cameras = [f"lab/cam{n}" for n in range(4)]
    kills, quarter = 2, 100
    frames = (kills + 1) * quarter
    again = [asyncio.Event() for _ in range(kills)]

    def made(seq: int) -> Verdict:
        return verdict(seq, flagged=60 <= seq < 80 if seq % 2 else None, whole=seq % 2 == 1)

    async def publish() -> None:
        for start in range(0, frames, 10):
            if start and start % quarter == 0:
                await again[start // quarter - 1].wait()
            for camera in cameras:
                repeats = [rng.randrange(start) for _ in range(2)] if start else []
                await scene.verdicts(map(made, [*range(start, start + 10), *repeats]), camera)
            await asyncio.sleep(0.05)  # a stream: what is written in one transaction cannot be killed half-way

    def recorded() -> int:
        return sum(len(scene.recorded(camera)) for camera in cameras)

    publishing = asyncio.create_task(publish())
    process = scene.process()
    try:
        for killed, event in enumerate(again):
            await until(lambda: recorded() > len(cameras) * quarter * killed)  # noqa: B023
            process.kill()
            await asyncio.to_thread(process.wait)
            event.set()
            process = scene.process()
        await publishing
        await until(lambda: all(len(scene.recorded(camera)) == frames for camera in cameras))

        def all_there() -> bool:
            with scene.records() as records:
                return records.duplicates() == len(cameras) * 2 * (frames // 10 - 1) and records.alert_count() == 4

        await until(all_there)
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
async def test_an_alert_that_was_not_published_is_published_at_the_next_start(scene: Scene) -> None:
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
    """The first value that a query gives."""
    connection = sqlite3.connect(scene.settings.database.removeprefix("sqlite:///"))
    with contextlib.closing(connection):
        row = connection.execute(query).fetchone()
        return row[0] if row else None


@pytest.mark.brokers
async def test_a_locked_database_holds_consumption_back_and_loses_nothing(scene: Scene) -> None:
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
async def test_a_recorder_goes_on_after_kafka_was_killed(scene: Scene, kafka: Kafka) -> None:
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


async def test_without_kafka_it_waits_and_still_stops_when_told(tmp_path: Path) -> None:
    settings = RecorderSettings(
        kafka=f"127.0.0.1:{_free_port()}",
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
    "wrong",
    [
        {"database": "sqlite://"},
        {"database": "mysql://user:secret@host/name"},
        {"database": "nonsense"},
        {"quarantine": "nosuchprotocol://bucket"},
    ],
)
async def test_a_setting_that_cannot_work_is_named_without_its_secrets(tmp_path: Path, wrong: dict[str, str]) -> None:
    good = {"database": f"sqlite:///{tmp_path}/records.sqlite", "quarantine": str(tmp_path)}
    settings = RecorderSettings.model_validate({"kafka": "127.0.0.1:1"} | good | wrong)
    with pytest.raises(ConfigError, match="expected") as caught:
        await run_recorder(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
    assert "secret" not in str(caught.value)


async def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = RecorderSettings(
            kafka="127.0.0.1:1",
            database=f"sqlite:///{tmp_path}/records.sqlite",
            quarantine=str(tmp_path),
            http=("127.0.0.1", taken.getsockname()[1]),
        )
        with pytest.raises(ConfigError, match="free address"):
            await run_recorder(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())


@pytest.mark.brokers
async def test_a_damaged_database_is_set_aside_and_a_new_one_takes_what_kafka_still_holds(
    scene: Scene,
) -> None:
    async with scene.recorder():
        await scene.verdicts(verdict(seq) for seq in range(3))
        await until(lambda: scene.recorded() == RangeSet([(0, 2)]))
    database = Path(scene.settings.database.removeprefix("sqlite:///"))
    database.write_bytes(b"no database at all" * 100)
    with pytest.raises(TryAgain, match="set aside"):
        await run_recorder(scene.settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
    async with scene.recorder():
        await until(lambda: scene.recorded() == RangeSet([(0, 2)]))
        assert scene.metric("pointillist_databases_set_aside") == 1
        assert scene.metric("pointillist_disk_free_bytes", holds="database") > 0


@pytest.mark.brokers
async def test_a_damaged_batch_in_kafkas_log_is_passed_over_and_counted_and_those_behind_it_are_recorded(
    scene: Scene, kafka: Kafka
) -> None:
    for first in range(0, 40, 4):
        await scene.verdicts(verdict(seq) for seq in range(first, first + 4))
    log = kafka.folder / "data" / f"{scene.settings.verdicts_topic}-0" / f"{0:020d}.log"
    other = log.parent.with_name(f"{scene.settings.verdicts_topic}-1") / log.name
    log = max(log, other, key=lambda file: file.stat().st_size)
    damage_batch(log, 1)
    async with scene.recorder():
        damaged = "pointillist_kafka_damaged_records_total"
        await until(lambda: len(scene.recorded()) + scene.metric(damaged, reader="recorder") == 40)
        passed = scene.metric(damaged, reader="recorder")
        await scene.verdicts([verdict(40)])
        await until(lambda: 40 in scene.recorded())
        (missing,) = RangeSet([(0, 40)]).minus(scene.recorded()).ranges()
        assert missing[1] - missing[0] + 1 == passed
        assert 0 < passed <= 4


@pytest.mark.brokers
async def test_a_partition_of_verdicts_that_stands_still_goes_on_where_kafka_gives_records_again(
    scene: Scene, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_damage, "LOOK_S", 1.0)
    monkeypatch.setattr(kafka_damage, "STALL_S", 2.0)
    for seq in range(30):
        # Each larger than the 4 KiB between two entries of Kafka's index, and in a batch of its own.
        await scene.verdicts([verdict(seq, preview=bytes(8000))])
    logs = (kafka.folder / "data").glob(f"{scene.settings.verdicts_topic}-*/{0:020d}.log")
    damage_length(max(logs, key=lambda file: file.stat().st_size), 10)
    async with scene.recorder():
        await until(lambda: 29 in scene.recorded())
        (missing,) = RangeSet([(0, 29)]).minus(scene.recorded()).ranges()
        assert missing[0] == 10
        passed = missing[1] - missing[0] + 1
        assert passed <= 3
        assert scene.metric("pointillist_kafka_damaged_records_total", reader="recorder") == passed


@pytest.mark.brokers
async def test_half_open_requests_do_not_stop_recording(scene: Scene) -> None:
    port = _free_port()
    process = scene.process(descriptors=200, http=("127.0.0.1", port))
    try:
        await until(lambda: _answers(port))
        with half_open(port, 600):
            # A flagged frame goes to the quarantine: a file has to be opened for it.
            await scene.verdicts(verdict(n, flagged=n % 10 == 0) for n in range(50))
            await until(lambda: len(scene.recorded()) == 50)
            assert (await _get(f"http://127.0.0.1:{port}/cameras"))[0] == 200
        process.terminate()
        assert await asyncio.to_thread(process.wait, WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.brokers
async def test_the_pages_of_a_killed_recorder_leave_their_address_to_the_next_one(scene: Scene) -> None:
    port = _free_port()
    for _ in range(3):
        process = scene.process(http=("127.0.0.1", port))
        try:
            await until(lambda: _answers(port))
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cameras", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
