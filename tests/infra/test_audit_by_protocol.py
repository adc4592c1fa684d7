"""The audit by Kafka's protocol and from any database, compared with the audit of local files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.harness.postgresql import PostgreSQL
from infra.audit.audit import Audit, audit, audit_deployment
from infra.local.kafka import Kafka
from infra.local.topics import TopicSpec, create_topics
from infra.state_folder import Layout, write_secret
from producers.spool import Spool
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, encode_frame
from schemas.pointillist_pb2 import DeadLetter
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from tests.consumers.recorder_rig import KEYS, SECRET, Rig, ledger, sign_as_processor, signed, verdict
from tests.infra import command_line
from tests.waiting import until

CAMERAS = [CameraId(f"yard/cam{number}") for number in range(5)]
BOOT = 77
FRAMES = 40
PICTURE = np.zeros((8, 8, 3), np.uint8)
TOPICS = [KafkaTopic.FRAMES, KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS, KafkaTopic.EVENTS]

pytestmark = pytest.mark.xdist_group("postgresql")


class Run:
    """An unfinished run: frames are pending in each topic, and a few are lost."""

    def __init__(self, kafka: Kafka, layout: Layout, rigs: list[Rig]) -> None:
        self.kafka, self.layout, self.rigs = kafka, layout, rigs

    async def publish(self) -> None:
        """Publish the frames, results and ledger of every camera, and invalid records."""
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap) as producer:
            for camera in CAMERAS:
                key = derive_camera_key(SECRET, camera)
                for seq in range(FRAMES):
                    frame = encode_frame(key, BOOT, seq, 1, PICTURE, Encoding())
                    await producer.send(KafkaTopic.FRAMES, frame, key=camera.encode())
                for seq in range(FRAMES):
                    if seq == 3:
                        continue  # the frame is lost
                    if seq == 5:
                        letter = DeadLetter(camera_id=camera, verified=True, boot_id=BOOT, seq=seq)
                        await producer.send(KafkaTopic.DEAD_LETTERS, sign_as_processor(letter), key=camera.encode())
                        continue
                    value = sign_as_processor(verdict(seq, boot=BOOT), camera)
                    for _ in range(2 if seq == 7 else 1):
                        await producer.send(KafkaTopic.VERDICTS, value, key=camera.encode())
                kind = [("ce_type", b"pointillist.v1.Ledger")]
                closed_ledger = ledger(1, FRAMES + 10, [(FRAMES, FRAMES + 1)], boot=BOOT)
                closed_ledger.confirmed_to = FRAMES
                await producer.send(KafkaTopic.EVENTS, signed(closed_ledger, camera), key=camera.encode(), headers=kind)
            await producer.send(KafkaTopic.DEAD_LETTERS, DeadLetter(reason="bad_tag").SerializeToString())
            await producer.send(KafkaTopic.VERDICTS, b"\xff" * 9, key=b"yard/cam0")
            await producer.send(KafkaTopic.FRAMES, b"no frame", key=b"yard/cam0")
            await producer.flush()

    async def consume(self, share: float) -> None:
        """Commit as the processors, and record as the recorders, this share of each partition."""
        reader = AIOKafkaConsumer(
            *TOPICS, bootstrap_servers=self.kafka.bootstrap, group_id=None, auto_offset_reset="earliest"
        )
        group = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap, group_id=PROCESSORS_GROUP, enable_auto_commit=False
        )
        await reader.start()
        await group.start()
        try:
            ends = await reader.end_offsets(reader.assignment())
            found: dict[TopicPartition, list[Any]] = {tp: [] for tp in ends}

            async def all_read() -> bool:
                for tp, records in (await reader.getmany(timeout_ms=200)).items():
                    found[tp] += records
                return all(len(found[tp]) == end for tp, end in ends.items())

            await until(all_read)
            frames = [tp for tp in ends if tp.topic == KafkaTopic.FRAMES]
            group.assign(frames)
            await group.commit({tp: round(share * ends[tp]) for tp in frames})
            for rig in self.rigs:
                for tp, records in found.items():
                    part = records if tp.topic == KafkaTopic.EVENTS else records[: round(share * len(records))]
                    if part and tp.topic != KafkaTopic.FRAMES:
                        rig.feed(part)
        finally:
            await group.stop()
            await reader.stop()


@pytest_asyncio.fixture
async def run(kafka: Kafka, postgresql: PostgreSQL, tmp_path: Path) -> AsyncIterator[Run]:
    layout = Layout(tmp_path / "state")
    layout.folder.mkdir()
    write_secret(layout.secret_file, SECRET.hex())
    (layout.folder / "kafka").symlink_to(kafka.folder)
    await create_topics(kafka.bootstrap, {topic: TopicSpec(partitions=3) for topic in TOPICS})
    shared = Rig(tmp_path, postgresql.create(f"audit_{tmp_path.name.replace('-', '_')}"))
    rigs = [Rig(tmp_path, layout.database_url), shared]
    unfinished = Run(kafka, layout, rigs)
    try:
        yield unfinished
    finally:
        for rig in rigs:
            rig.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.delete_topics([str(topic) for topic in TOPICS])
        await admin.close()


def figures(found: Audit) -> object:
    boots = [(b.camera_id, b.boot_id, b.published, b.recorded, b.dead_lettered, b.shed, b.pending, b.lost, b.duplicates)
             for b in found.boots]  # fmt: skip
    return boots, found.counts(), found.kafka_frames, found.frames_from_ms, found.ledgers_refused


async def test_the_audit_by_protocol_and_from_any_database_equals_the_audit_of_files(run: Run) -> None:
    await run.publish()
    await run.consume(0.6)
    spool = Spool(run.layout.spool / "yard" / "cam9", CameraId("yard/cam9"))
    key = derive_camera_key(SECRET, CameraId("yard/cam9"))
    for seq in range(3):
        spool.append(encode_frame(key, spool.current.boot_id, seq, 1, PICTURE, Encoding()), seq, 1, PICTURE.nbytes)
    spool.close()
    files = audit(run.layout)
    counts = files.counts()
    assert min(counts.frames_lost, counts.duplicates_removed, counts.frames_foreign) > 0
    assert min(counts.frames_recorded, counts.frames_dead_lettered, counts.frames_pending, counts.frames_shed) > 0
    for rig in run.rigs:
        arguments = ["audit", "--kafka", run.kafka.bootstrap, "--database", rig.url]
        arguments += ["--spool", str(run.layout.spool), "--state", str(run.layout.folder), "--json"]
        by_protocol = await asyncio.to_thread(command_line.run, *arguments)
        assert by_protocol.exit_code == 1, by_protocol.output
        from_files = await asyncio.to_thread(command_line.run, "audit", "--state", run.layout.folder, "--json")
        assert json.loads(by_protocol.stdout) == json.loads(from_files.stdout)


async def test_a_camera_with_a_remote_spool_is_counted_by_its_signed_ledger(run: Run) -> None:
    await run.publish()
    await run.consume(1)
    found = await asyncio.to_thread(audit_deployment, run.kafka.bootstrap, run.rigs[1].url, [], KEYS)
    counts = found.counts()
    assert counts.frames_published == len(CAMERAS) * (FRAMES + 10)
    assert counts.frames_shed == len(CAMERAS) * 2
    # The camera may still hold the frames that Kafka has not confirmed.
    assert counts.frames_pending == len(CAMERAS) * 8
    assert counts.frames_lost == len(CAMERAS)
    assert figures(found) == figures(await asyncio.to_thread(audit, run.layout))


def test_a_database_without_the_recorder_s_tables_is_rejected(postgresql: PostgreSQL) -> None:
    url = postgresql.create("audit_without_tables")
    with pytest.raises(StateError, match="expected the recorder's tables, got none"):
        audit_deployment("127.0.0.1:1", url, [], KEYS)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--kafka", "127.0.0.1:1"], "audit: expected --kafka and --database together"),
        (["--spool", "."], "audit: expected --kafka and --database together"),
        (
            ["--kafka", "KAFKA", "--database", "sqlite:////nowhere/records.sqlite"],
            "/nowhere/records.sqlite is missing: ",
        ),
        (
            ["--kafka", "KAFKA", "--database", "postgresql+psycopg://eve:s3cret@127.0.0.1:1/records"],
            "the recorder's database: expected a response, got ",
        ),
        (
            ["--kafka", "KAFKA", "--database", "sqlite:///x", "--spool", "/nowhere"],
            "--spool: expected a folder with spools",
        ),
    ],
)
def test_an_impossible_audit_is_one_error_line(kafka: Kafka, arguments: list[str], line: str) -> None:
    options = [kafka.bootstrap if each == "KAFKA" else each for each in arguments]
    found = command_line.refusal(command_line.run("audit", *options, POINTILLIST_FLEET_SECRET=SECRET.hex()))
    assert found.startswith(line)
    assert "s3cret" not in found
