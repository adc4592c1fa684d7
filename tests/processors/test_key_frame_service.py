from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.kafka import Kafka
from processors.arrivals.key_frames import read_note
from schemas.pointillist_pb2 import LOSSLESS, Frame, KeyRequest
from tests.processors.rig import Name, Rig, rig
from tests.processors.tiny import KeyedCamera, write_bundle
from tests.waiting import until

pytestmark = [pytest.mark.brokers, pytest.mark.usefixtures("keyed_profile")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def frames(cameras: list[KeyedCamera], each: int) -> dict[Name, bytes]:
    found = {}
    for _ in range(each):
        for camera in cameras:
            message = camera.message()
            found[camera.name, 7, Frame.FromString(message).seq] = message
    return found


async def notes(made: Rig) -> set[tuple[int, int]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=made.bootstrap, group_id=f"group-{made.run}")
    await consumer.start()
    try:
        partitions = [TopicPartition(made.topic("frames"), p) for p in range(4)]
        found = await consumer._coordinator.fetch_committed_offsets(partitions)
        return {(p.partition, offset) for p, each in found.items() for offset in read_note(each.metadata)}
    finally:
        await consumer.stop()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_processor_that_takes_over_has_the_key_frames_that_the_one_before_it_had(
    kafka: Kafka, bundle: Path, killed: bool
) -> None:
    cameras = [KeyedCamera(f"site/cam-{number}") for number in range(5)]
    sent = frames(cameras, 8)
    async with rig(kafka.bootstrap, bundle) as made:
        first = made.start(session_timeout_s=2.0)
        await until(first.healthy)
        await made.publish((name[0], message) for name, message in sent.items())
        await until(lambda: len(made.verdicts) == len(sent))
        if killed:

            async def committed() -> bool:
                return await made.committed() == len(sent)

            await until(committed, "its last commit")
            first.task.cancel()
        first.stop.set()
        await asyncio.gather(first.task, return_exceptions=True)
        assert len(await notes(made)) == len(cameras)
        more = frames(cameras, 8)
        assert all(Frame.FromString(message).key_distance for message in more.values())
        async with made.processor(session_timeout_s=2.0) as second:
            await made.publish((name[0], message) for name, message in more.items())
            await until(lambda: len(made.verdicts) == len(sent) + len(more))
            assert second.metric("pointillist_key_frames_total", outcome="recalled") == len(cameras)
            assert second.metric("pointillist_keyed_frames_total", outcome="without_key") == 0
    assert not made.letters
    assert all(verdict.profile == LOSSLESS for (verdict, *_) in made.verdicts.values())


async def test_frames_whose_key_frame_is_lost_are_dead_lettered_by_name_and_it_is_asked_for(
    kafka: Kafka, bundle: Path
) -> None:
    lost, well = KeyedCamera("site/lost"), KeyedCamera("site/well")
    key = lost.message()
    orphans = frames([lost], 3)
    others = frames([well], 4)
    async with rig(kafka.bootstrap, bundle) as made:
        async with made.processor(key_wait_s=0.6, events_topic=made.topic("letters")) as running:
            await made.publish((name[0], message) for name, message in (orphans | others).items())
            await until(lambda: len(made.letters) == 4)
            await until(lambda: len(made.verdicts) == len(others))
            assert running.metric("pointillist_key_frames_total", outcome="requested") == 1
            late = frames([lost], 2)
            await made.publish([("site/lost", key)])
            await made.publish((name[0], message) for name, message in late.items())
            await until(lambda: len(made.verdicts) == len(others) + 1 + len(late))
        assert await made.committed() == len(orphans) + len(others) + len(late) + 1
    refused = [letter for letter in made.letters if letter.reason == "no_key_frame"]
    assert {(letter.camera_id, letter.boot_id, letter.seq) for letter in refused} == orphans.keys()
    assert all(letter.verified and letter.stage == "key" for letter in refused)
    (request,) = [letter for letter in made.letters if letter.reason != "no_key_frame"]
    asked = KeyRequest.FromString(request.SerializeToString())
    assert (asked.boot_id, asked.seq) == (7, 0)
