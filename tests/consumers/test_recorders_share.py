"""Several recorders on one PostgreSQL: with kills and restarts, their result equals that of a single recorder."""

from __future__ import annotations

import asyncio
import random
import subprocess
import uuid
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.harness.postgresql import PostgreSQL
from schemas.evidence.rule import EvidenceRule
from schemas.pointillist_pb2 import Verdict
from schemas.ranges import RangeSet
from tests.conftest import TopicFactory
from tests.consumers.recorder_rig import BOOT, Rig, dead_letter, ledger, sign_as_processor, verdict
from tests.consumers.scene import Scene
from tests.waiting import until

CAMERAS = [f"lab/cam{number}" for number in range(12)]
FRAMES = 400
PATIENT = EvidenceRule(patience_s=600)
"""A rule without time-outs: the alerts then depend only on the frames."""

pytestmark = [pytest.mark.brokers, pytest.mark.xdist_group("postgresql")]


@pytest_asyncio.fixture
async def shared(scene: Scene, kafka_topics: TopicFactory, postgresql: PostgreSQL) -> Scene:
    """Return the scene with a PostgreSQL database, for recorders of a group."""
    name = f"recorders_{uuid.uuid4().hex}"
    scene.settings = scene.settings.model_copy(
        update={
            "database": postgresql.create(name),
            "group": name,
            "evidence": PATIENT,
            "verdicts_topic": await kafka_topics(4),
            "events_topic": await kafka_topics(4),
            "dead_letters_topic": await kafka_topics(4),
        }
    )
    return scene


def probe_or_frame(seq: int) -> Verdict:
    """Return a verdict. Every other frame is a probe; each fifth run of 20 frames shows a trigger."""
    return verdict(seq, flagged=(seq // 20) % 5 == 3 if seq % 2 else None, whole=seq % 2 == 1)


def is_letter(seq: int) -> bool:
    return seq % 50 == 10


def expected_alerts(folder: Path) -> dict[str, str]:
    """Return ids and cameras of the alerts that a single undisturbed recorder raises."""
    rig = Rig(folder, f"sqlite:///{folder}/alone.sqlite", rule=PATIENT)
    alerts: dict[str, str] = {}
    for camera in CAMERAS:
        for seq in filter(is_letter, range(FRAMES)):
            rig.letter(dead_letter(seq, verified=True, camera_id=camera))
        written = rig.verdicts((probe_or_frame(seq) for seq in range(FRAMES) if not is_letter(seq)), camera)
        alerts |= {alert.alert_id: alert.camera_id for alert in written.alerts}
    rig.close()
    return alerts


async def publish(scene: Scene, recorded: asyncio.Event) -> None:
    """Publish a shuffled stream with duplicates; publish its second half once `recorded` is set."""
    rng = random.Random(5)
    for start in range(0, FRAMES, 20):
        if start == FRAMES // 2:
            await recorded.wait()
        for camera in CAMERAS:
            seqs = list(range(start, start + 20))
            rng.shuffle(seqs)
            repeats = [seq for seq in seqs[:2] if not is_letter(seq)]
            await scene.verdicts((probe_or_frame(seq) for seq in [*seqs, *repeats] if not is_letter(seq)), camera)
            for seq in filter(is_letter, seqs):
                await scene.letter(sign_as_processor(dead_letter(seq, verified=True, camera_id=camera)))
            await scene.event(ledger(start + 1, start + 20), camera)
        await asyncio.sleep(0.05)  # a slow stream, so that kills come between transactions


async def test_recorders_lose_and_duplicate_nothing_over_kills_and_a_restart_of_the_database(
    shared: Scene, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    letters = RangeSet.of(filter(is_letter, range(FRAMES)))
    verdicts = RangeSet([(0, FRAMES - 1)]).minus(letters)
    half = asyncio.Event()
    publishing = asyncio.create_task(publish(shared, half))
    processes = [shared.process(), shared.process()]

    seen = shared.records()

    def count() -> int:
        try:
            return seen.byte_sums().frames
        except SQLAlchemyError:  # the tables do not exist yet, or the server restarts
            return 0

    async def recorded(share: float) -> None:
        async def is_reached() -> bool:
            return await asyncio.to_thread(count) >= share * len(CAMERAS) * len(verdicts)

        await until(is_reached)

    async def kill(number: int) -> None:
        processes[number].kill()
        await asyncio.to_thread(processes[number].wait)

    try:
        await recorded(0.05)
        await kill(0)
        processes.append(shared.process())
        await recorded(0.4)
        await asyncio.to_thread(postgresql.restart)
        half.set()
        await recorded(0.7)
        await kill(1)
        await publishing
        await recorded(1)

        def settled() -> bool:
            recorded, dead_lettered = seen.recorded_by_boot(), seen.dead_lettered_by_boot()
            return {row.revision for row in seen.ledgers()} == {FRAMES - 19} and all(
                recorded.get((camera, BOOT)) == verdicts and dead_lettered.get((camera, BOOT)) == letters
                for camera in CAMERAS
            )

        await until(settled)
        expected = expected_alerts(tmp_path)
        assert len(expected) > len(CAMERAS)

        async def all_published() -> bool:
            return {alert.alert_id for alert in await shared.alerts()} == expected.keys()

        await until(all_published)
        processes[-1].terminate()
        assert await asyncio.to_thread(processes[-1].wait, 60) == 0
    finally:
        seen.close()
        publishing.cancel()
        for process in processes:
            process.kill()
            process.wait()
    with shared.records() as records:
        assert records.boots() == {(camera, BOOT) for camera in CAMERAS}
        assert records.byte_sums().frames == len(CAMERAS) * len(verdicts)
        assert records.alert_count() == len(expected)
        assert {row.revision for row in records.ledgers()} == {FRAMES - 19}
    alerts = await shared.alerts()
    assert {alert.alert_id for alert in alerts} == expected.keys()


async def test_a_recorder_that_hung_writes_nothing_after_another_has_taken_over(shared: Scene) -> None:
    hung = shared.process()
    other: subprocess.Popen[bytes] | None = None
    try:
        await shared.verdicts(map(probe_or_frame, range(10)))
        await until(lambda: len(shared.recorded()) == 10)
        hung.send_signal(19)
        other = shared.process()
        await shared.verdicts(map(probe_or_frame, range(10, 20)))
        await until(lambda: len(shared.recorded()) == 20)
        hung.send_signal(18)
        await shared.verdicts(map(probe_or_frame, range(20, 60)))
        await until(lambda: len(shared.recorded()) == 60)
    finally:
        for process in (hung, *([other] if other is not None else [])):
            process.send_signal(18)
            process.kill()
            process.wait()
    with shared.records() as records:
        assert records.byte_sums().frames == 60
        assert records.duplicates() == 0
