"""Several recorders on one PostgreSQL: whatever dies, comes or starts again, it is as if there were one alone."""

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
from tests.consumers.recorder_rig import BOOT, Rig, dead_letter, ledger, spoken, verdict
from tests.consumers.scene import Scene
from tests.waiting import until

CAMERAS = [f"lab/cam{number}" for number in range(12)]
FRAMES = 400
PATIENT = EvidenceRule(patience_s=600)
"""What is read of frames then depends on nothing but their order."""

pytestmark = [pytest.mark.brokers, pytest.mark.xdist_group("postgresql")]


@pytest_asyncio.fixture
async def shared(scene: Scene, kafka_topics: TopicFactory, postgresql: PostgreSQL) -> Scene:
    """The scene on a PostgreSQL, for recorders of a group."""
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


def made(seq: int) -> Verdict:
    """Every other frame is checked; a trigger is in view now and then."""
    return verdict(seq, flagged=(seq // 20) % 5 == 3 if seq % 2 else None, whole=seq % 2 == 1)


def is_letter(seq: int) -> bool:
    return seq % 50 == 10


def expected_alerts(folder: Path) -> dict[str, str]:
    """What a single recorder raises that is never disturbed: alert ids and their cameras."""
    rig = Rig(folder, f"sqlite:///{folder}/alone.sqlite", rule=PATIENT)
    alerts: dict[str, str] = {}
    for camera in CAMERAS:
        for seq in filter(is_letter, range(FRAMES)):
            rig.letter(dead_letter(seq, verified=True, camera_id=camera))
        written = rig.verdicts((made(seq) for seq in range(FRAMES) if not is_letter(seq)), camera)
        alerts |= {alert.alert_id: alert.camera_id for alert in written.alerts}
    rig.close()
    return alerts


async def publish(scene: Scene, recorded: asyncio.Event) -> None:
    """A stream of frames, in some disorder and some of them twice; the second half when the first is `recorded`."""
    rng = random.Random(5)
    for start in range(0, FRAMES, 20):
        if start == FRAMES // 2:
            await recorded.wait()
        for camera in CAMERAS:
            some = list(range(start, start + 20))
            rng.shuffle(some)
            repeats = [seq for seq in some[:2] if not is_letter(seq)]
            await scene.verdicts((made(seq) for seq in [*some, *repeats] if not is_letter(seq)), camera)
            for seq in filter(is_letter, some):
                await scene.letter(spoken(dead_letter(seq, verified=True, camera_id=camera)))
            await scene.event(ledger(start + 1, start + 20), camera)
        await asyncio.sleep(0.05)  # a stream: what is written in one transaction cannot be killed half-way


async def test_two_recorders_one_killed_one_added_and_the_database_restarted_lose_and_double_nothing(
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
        except SQLAlchemyError:  # the tables are being made, or the server starts again
            return 0

    async def recorded(share: float) -> None:
        async def enough() -> bool:
            return await asyncio.to_thread(count) >= share * len(CAMERAS) * len(verdicts)

        await until(enough)

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
            recorded, refused = seen.recorded_by_boot(), seen.dead_lettered_by_boot()
            return {row.revision for row in seen.ledgers()} == {FRAMES - 19} and all(
                recorded.get((camera, BOOT)) == verdicts and refused.get((camera, BOOT)) == letters
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


async def test_a_recorder_that_hung_writes_nothing_of_what_another_has_taken_up(shared: Scene) -> None:
    hung = shared.process()
    other: subprocess.Popen[bytes] | None = None
    try:
        await shared.verdicts(map(made, range(10)))
        await until(lambda: len(shared.recorded()) == 10)
        hung.send_signal(19)
        other = shared.process()
        await shared.verdicts(map(made, range(10, 20)))
        await until(lambda: len(shared.recorded()) == 20)
        hung.send_signal(18)
        await shared.verdicts(map(made, range(20, 60)))
        await until(lambda: len(shared.recorded()) == 60)
    finally:
        for process in (hung, *([other] if other is not None else [])):
            process.send_signal(18)
            process.kill()
            process.wait()
    with shared.records() as records:
        assert records.byte_sums().frames == 60
        assert records.duplicates() == 0
