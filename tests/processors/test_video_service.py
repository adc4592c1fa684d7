"""Processors with frames that depend on other frames, with a real Kafka: restarts within groups, and missing frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.kafka import Kafka
from processors.arrivals.group_member import GroupMember
from processors.arrivals.key_frames import read_note
from processors.decoding import process
from processors.results import key_requests
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, VIDEO, Frame, KeyRequest
from schemas.transport.kafka.reader import Reader, Records
from tests.processors.rig import FrameName, Rig, start_rig
from tests.processors.tiny import KeyedCamera, VideoCamera, write_bundle
from tests.waiting import until

pytestmark = pytest.mark.brokers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def frames(cameras: Sequence[KeyedCamera | VideoCamera], each: int) -> dict[FrameName, bytes]:
    found = {}
    for _ in range(each):
        for camera in cameras:
            message = camera.message()
            found[camera.name, 7, Frame.FromString(message).seq] = message
    return found


def messages(sent: dict[FrameName, bytes]) -> list[tuple[str, bytes | None]]:
    return [(name[0], message) for name, message in sent.items()]


class LateNotes:
    """A patch that delays the notes of commits until the first records of their partitions are fetched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched, fetched_again = asyncio.Event(), asyncio.Event()
        fetch, notes = Reader.fetch, GroupMember._committed_notes

        async def fetch_again(reader: Reader, *places: TopicPartition, **options: Any) -> Records:
            if fetched.is_set():
                fetched_again.set()
            found = await fetch(reader, *places, **options)
            if found and reader._group is not None:
                fetched.set()
            return found

        async def late_notes(member: GroupMember, partitions: set[TopicPartition]) -> dict[TopicPartition, str]:
            if partitions:
                await fetched_again.wait()
            return await notes(member, partitions)

        monkeypatch.setattr(Reader, "fetch", fetch_again)
        monkeypatch.setattr(GroupMember, "_committed_notes", late_notes)


async def notes(rig: Rig) -> set[tuple[int, int]]:
    async with AIOKafkaConsumer(bootstrap_servers=rig.bootstrap, group_id=f"group-{rig.run}") as consumer:
        partitions = [TopicPartition(rig.topic("frames"), p) for p in range(4)]
        found = await consumer._coordinator.fetch_committed_offsets(partitions)
        return {(p.partition, offset) for p, each in found.items() for offset in read_note(each.metadata)}


async def test_without_a_decoding_process_frames_wait_and_the_health_names_the_cause(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent = frames([VideoCamera("site/cam-0")], 6)
    async with start_rig(kafka.bootstrap, bundle) as rig, rig.processor() as running:
        with monkeypatch.context() as missing:
            missing.setattr(process, "MODULE", (str(tmp_path / "gone"), "-m"))
            await rig.publish(messages(sent))

            def unhealthy() -> list[str]:
                return [name for name, each in running.health.report()[1].items() if not each["ok"]]

            # On a busy machine another condition may fail for a moment.
            await until(lambda: unhealthy() == ["decoding"], "an unhealthy processor")
            assert str(tmp_path / "gone") in str(running.health.report()[1]["decoding"]["detail"])
        await until(lambda: len(rig.verdicts) == len(sent))
        await until(running.healthy)
        assert not rig.letters


@pytest.mark.parametrize(("killed", "late"), [(False, False), (True, False), (True, True)])
async def test_a_processor_that_takes_over_within_groups_decodes_their_later_frames(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch, killed: bool, late: bool
) -> None:
    cameras = [VideoCamera(f"site/cam-{number}", probe_share=0.1, group_frames=20) for number in range(3)]
    sent = frames(cameras, 27)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        first = rig.start(session_timeout_s=6.0)
        await until(first.healthy)
        await rig.publish(messages(sent))
        await until(lambda: len(rig.verdicts) == len(sent))
        if killed:

            async def committed() -> bool:
                return await rig.committed() == len(sent)

            await until(committed, "its last commit")
            first.task.cancel()
        first.stop.set()
        await asyncio.gather(first.task, return_exceptions=True)
        assert len(await notes(rig)) >= len(cameras)
        more = frames(cameras, 8)
        assert all(Frame.FromString(message).key_distance for message in more.values() if not _whole(message))
        if late:
            await rig.publish(messages(more))
            LateNotes(monkeypatch)
        async with rig.processor(session_timeout_s=6.0, key_wait_frames=1) as second:
            if not late:
                await rig.publish(messages(more))
            await until(lambda: len(rig.verdicts) == len(sent) + len(more) or bool(rig.letters))
            assert second.metric("pointillist_video_frames_total", outcome="missing") == 0
            assert second.metric("pointillist_key_frames_total", outcome="recalled") >= len(cameras)
            assert second.metric("pointillist_video_frames_total", outcome="restored") >= len(cameras)
            assert second.metric("pointillist_key_frames_total", outcome="requested") == 0
    assert not rig.letters
    for verdict, *_ in rig.verdicts.values():
        assert verdict.profile == VIDEO
        assert verdict.strip == (CHECKED if verdict.whole else NOT_PROBED)


async def test_a_missing_frame_fails_only_the_rest_of_its_group(kafka: Kafka, bundle: Path) -> None:
    lost, well = VideoCamera("site/lost", group_frames=6), VideoCamera("site/well", group_frames=6)
    sent = frames([lost, well], 12)
    del sent["site/lost", 7, 2]
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor(group_wait_s=0.6) as running:
            await rig.publish(messages(sent))
            await until(lambda: len(rig.verdicts) == len(sent) - 3 and len(rig.letters) == 3)
            assert running.metric("pointillist_video_frames_total", outcome="missing") == 3
            assert running.metric("pointillist_key_frames_total", outcome="requested") == 1
        assert await rig.committed() == len(sent)
    assert {(letter.camera_id, letter.boot_id, letter.seq) for letter in rig.letters} == {
        ("site/lost", 7, seq) for seq in (3, 4, 5)
    }
    assert {(letter.reason, letter.stage, letter.verified) for letter in rig.letters} == {
        ("missing_reference", "decode", True)
    }
    assert all(len(verdicts) == 1 for verdicts in rig.verdicts.values())


@pytest.mark.usefixtures("keyed_profile")
async def test_frames_with_a_lost_key_frame_are_dead_lettered_and_it_is_requested(
    kafka: Kafka, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_requests, "_AGAIN_S", 60.0)
    lost, well = KeyedCamera("site/lost"), KeyedCamera("site/well")
    key = lost.message()
    orphans = frames([lost], 3)
    unaffected = frames([well], 4)
    async with start_rig(kafka.bootstrap, bundle) as rig:
        async with rig.processor(key_wait_s=0.6, events_topic=rig.topic("letters")) as running:
            await rig.publish(messages(orphans | unaffected))
            await until(lambda: len(rig.letters) == 4)
            await until(lambda: len(rig.verdicts) == len(unaffected))
            assert running.metric("pointillist_key_frames_total", outcome="requested") == 1
            late = frames([lost], 2)
            await rig.publish([("site/lost", key)])
            await rig.publish(messages(late))
            await until(lambda: len(rig.verdicts) == len(unaffected) + 1 + len(late))
        assert await rig.committed() == len(orphans) + len(unaffected) + len(late) + 1
    failed = [letter for letter in rig.letters if letter.reason == "no_key_frame"]
    assert {(letter.camera_id, letter.boot_id, letter.seq) for letter in failed} == orphans.keys()
    assert all(letter.verified and letter.stage == "key" for letter in failed)
    (request,) = [letter for letter in rig.letters if letter.reason != "no_key_frame"]
    key_request = KeyRequest.FromString(request.SerializeToString())
    assert (key_request.boot_id, key_request.seq) == (7, 0)


def _whole(message: bytes) -> bool:
    return Frame.FromString(message).whole
