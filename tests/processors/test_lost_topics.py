"""A processor reports a lost topic, and reads again once the topic exists again; with a real Kafka."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infra.local.kafka import Kafka
from infra.local.topics import TopicSpec, create_topics
from processors.arrivals import group_watch
from processors.arrivals.group_watch import GroupReport, GroupWatch, held_partitions
from schemas.transport.kafka import reader
from schemas.transport.kafka.admin import Admin
from schemas.waiting import cancel
from tests.conftest import TopicFactory
from tests.processors.rig import Rig, Running, delete_topics, start_rig
from tests.processors.tiny import payload, write_bundle
from tests.waiting import until

pytestmark = pytest.mark.brokers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def short_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the group every .3 s."""
    monkeypatch.setattr(group_watch, "POLL_S", 0.3)


async def publish(rig: Rig, first: int, count: int) -> None:
    await rig.publish([(f"site/cam-{n % 4}", payload(f"site/cam-{n % 4}", n)) for n in range(first, first + count)])


def detail_of(running: Running, condition: str) -> str:
    return str(running.health.report()[1].get(condition, {}).get("detail"))


def why(running: Running) -> str:
    return detail_of(running, "read")


async def remake(rig: Rig) -> None:
    await create_topics(rig.bootstrap, {rig.topic("frames"): TopicSpec(4)})


async def test_without_its_topic_a_processor_is_unhealthy_and_reads_the_recreated_one(
    kafka: Kafka, bundle: Path
) -> None:
    async with (
        start_rig(kafka.bootstrap, bundle) as rig,
        rig.processor(instance="processor-1", session_timeout_s=6.0) as running,
    ):
        await publish(rig, 0, 40)
        await until(lambda: len(rig.verdicts) == 40)
        await delete_topics(kafka.bootstrap, rig.topic("frames"))
        await until(lambda: not running.healthy() and "none of that name" in why(running))
        await shared_out(rig, 0)
        await remake(rig)
        await publish(rig, 100, 40)
        await until(lambda: len(rig.verdicts) == 80 and running.healthy())
    assert not rig.letters


async def test_a_processor_restarted_with_an_empty_assignment_gets_the_recreated_topic(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_watch, "PATIENCE_S", 2.0)
    # With a shorter period, the group's leader could find the new topic before its restart.
    monkeypatch.setattr(reader, "_GROUP_METADATA_S", 300.0)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor(instance="processor-1", session_timeout_s=6.0) as running:
            await delete_topics(kafka.bootstrap, rig.topic("frames"))
            await until(lambda: not running.healthy() and "none of that name" in why(running))
            await shared_out(rig, 0)
            await remake(rig)
        # The group keeps its static member with an empty assignment and has no leader.
        again = rig.start(instance="processor-1", session_timeout_s=6.0)
        try:
            await publish(rig, 0, 40)
            # Kafka sometimes rebalances by itself. The test requires only that the member gets the partitions.
            await until(lambda: len(rig.verdicts) == 40 and again.healthy())
            again.stop.set()
            await again.task
        finally:
            await cancel(again.task)


def assigned(running: Running) -> bool:
    return bool(running.health.report()[1].get("assigned", {}).get("ok"))


async def shared_out(rig: Rig, partitions: int) -> None:
    """Wait until the members of the group hold this many partitions."""
    async with Admin(rig.bootstrap) as admin:

        async def is_settled() -> bool:
            held = await held_partitions(admin, f"group-{rig.run}", rig.topic("frames"))
            return held is not None and len(held) == partitions

        await until(is_settled, f"the group to hold {partitions} partitions")


async def test_a_recreated_log_is_read_from_its_beginning(kafka: Kafka, bundle: Path) -> None:
    async with (
        start_rig(kafka.bootstrap, bundle) as rig,
        rig.processor(instance="processor-1", session_timeout_s=6.0) as running,
    ):
        await publish(rig, 0, 40)
        await until(lambda: len(rig.verdicts) == 40)
        await delete_topics(kafka.bootstrap, rig.topic("frames"))
        await remake(rig)
        await publish(rig, 100, 20)
        await until(lambda: len(rig.verdicts) == 60 and running.healthy())


async def test_a_spare_processor_reads_no_frame_of_a_recreated_topic_again(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads_since_loss: dict[GroupWatch, int] = {}
    check = GroupWatch._check

    async def noted(watch: GroupWatch, admin: Admin) -> GroupReport:
        found = await check(watch, admin)
        if found.topic_lost:
            reads_since_loss[watch] = 0
        elif found.unread == "" and watch in reads_since_loss:
            reads_since_loss[watch] += 1
        return found

    monkeypatch.setattr(GroupWatch, "_check", noted)
    async with (
        start_rig(kafka.bootstrap, bundle) as rig,
        rig.processor(instance="one", session_timeout_s=6.0) as one,
        rig.processor(instance="two", session_timeout_s=6.0) as two,
    ):
        await delete_topics(kafka.bootstrap, rig.topic("frames"))
        await until(lambda: len(reads_since_loss) == 2)
        await shared_out(rig, 0)
        await create_topics(rig.bootstrap, {rig.topic("frames"): TopicSpec(1)})
        await rig.publish([("site/cam-0", payload("site/cam-0", n)) for n in range(20)])
        await until(lambda: len(rig.verdicts) == 20 and one.healthy() and two.healthy())
        await until(lambda: min(reads_since_loss.values()) > 1)  # each processor has reacted to the first of them
        reader = max(one, two, key=lambda each: each.metric("pointillist_frames_total", outcome="classified"))
        reader.stop.set()
        await reader.task
        await rig.publish([("site/cam-0", payload("site/cam-0", 20))])
        await until(lambda: len(rig.verdicts) == 21)
    assert {len(found) for found in rig.verdicts.values()} == {1}


async def test_a_processor_without_partitions_is_healthy_and_stays_in_the_group(
    kafka: Kafka, bundle: Path, kafka_topics: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_watch, "PATIENCE_S", 1.0)
    topic = await kafka_topics(partitions=1)
    async with (
        start_rig(kafka.bootstrap, bundle) as rig,
        rig.processor(instance="one", frames_topic=topic) as first,
        rig.processor(instance="two", frames_topic=topic) as second,
    ):
        # When the second member joins, the partition is revoked from the first one and assigned again.
        await until(lambda: assigned(first) and assigned(second) and why(first) == why(second) == "")
        end_s = time.monotonic() + 4 * group_watch.PATIENCE_S

        def steady() -> bool:
            assert assigned(first)
            assert assigned(second)
            assert why(first) == why(second) == ""
            return time.monotonic() > end_s

        await until(steady)
        await until(lambda: first.healthy() and second.healthy())
