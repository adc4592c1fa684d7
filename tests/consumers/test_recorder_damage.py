from __future__ import annotations

import asyncio
from math import nan
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update
from structlog.testing import capture_logs

from consumers.database.tables import cameras, evidence, ledgers
from consumers.recorder.recorder import run_recorder
from infra.local.kafka import Kafka
from schemas.errors import RestartRequired
from schemas.evidence.alarms import Tracks
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.stored import pack_probes, pack_tracks, unpack_probes, unpack_tracks
from schemas.evidence.track import PastFrame, Probe, Track
from schemas.pointillist_pb2 import ONLINE, Meta, Status, Turn
from schemas.ranges import RangeSet
from schemas.runtime.health import Health
from schemas.transport.kafka import damage
from tests.consumers.recorder_rig import BOOT, CAMERA, KEYS, MakeRig, Rig, ledger, signed, verdict
from tests.consumers.scene import Scene
from tests.kafka_files import damage_batch, damage_length
from tests.waiting import until


@pytest.mark.brokers
async def test_a_damaged_database_is_set_aside_and_a_new_one_filled_from_kafka(scene: Scene) -> None:
    async with scene.recorder():
        await scene.verdicts(verdict(seq) for seq in range(3))
        await until(lambda: scene.recorded() == RangeSet([(0, 2)]))
    scene.close()  # an open reader keeps the log, from which SQLite restores the beginning of the file
    database = Path(scene.settings.database.removeprefix("sqlite:///"))
    database.write_bytes(b"no database at all" * 100)
    with pytest.raises(RestartRequired, match="set aside"):
        await run_recorder(scene.settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
    async with scene.recorder():
        await until(lambda: scene.recorded() == RangeSet([(0, 2)]))
        assert scene.metric("pointillist_databases_set_aside") == 1
        assert scene.metric("pointillist_disk_free_bytes", holds="database") > 0


def test_a_damaged_message_in_a_row_stops_no_recording(rig: Rig) -> None:
    def announce(number: int) -> None:
        turn = Turn(connection=1, message=number, at_ms=number)
        status, meta = Status(state=ONLINE, boot_id=BOOT, turn=turn), Meta(boot_id=BOOT, turn=turn)
        topic, key = rig.settings.events_topic, CAMERA.encode()
        rig.feed([rig.record(topic, key, signed(status), "Status"), rig.record(topic, key, signed(meta), "Meta")])

    announce(1)
    rig.ledger(ledger(1, 2))
    with rig.engine.begin() as connection:
        connection.execute(update(cameras).values(status=b"\xff", meta=b"\xff"))
        connection.execute(update(ledgers).values(message=b"\xff"))
    rig.verdicts([verdict(0, flagged=True), verdict(2, flagged=True)])  # frame 1 is missing: its fate is looked up
    announce(2)
    with rig.engine.begin() as connection:
        row = connection.execute(select(cameras)).one()
    assert (Status.FromString(row.status).turn.message, Meta.FromString(row.meta).turn.message) == (2, 2)
    assert rig.count("frames") == 2


FAR = Probe(2**63, 0.5, 0.5, True, 1)
"""A frame whose number no camera reaches."""


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("waiting", b"\xff"),
        ("waiting", pack_probes([FAR])),
        ("track", b"\xff"),
        ("track", pack_tracks(Tracks(Track((PastFrame(0.0, False),) * EvidenceRule().baseline_probes, total=nan)))),
    ],
    ids=["waiting-size", "waiting-number", "track-size", "track-sum"],
)
def test_damaged_evidence_of_a_camera_stops_no_recording(rig: Rig, column: str, value: bytes) -> None:
    rig.verdicts([verdict(0, flagged=True)])
    with rig.engine.begin() as connection:
        connection.execute(update(evidence).values({column: value}))
    raised = rig.verdicts([verdict(1, flagged=True)]).alerts
    assert len(raised) == (column == "waiting")  # frames 0 and 1 together raise it, and damage alone none
    assert rig.count("frames") == 2
    with rig.engine.begin() as connection:
        row = connection.execute(select(evidence)).one()
    assert (row.following, row.waiting, unpack_tracks(row.track).strip.last) == (2, b"", 1)


@pytest.mark.parametrize(("column", "waits", "known"), [("waiting", 0, 1), ("track", 1, 0)])
def test_the_other_part_of_damaged_evidence_is_kept(rig: Rig, column: str, waits: int, known: int) -> None:
    rig.verdicts([verdict(0, flagged=False), verdict(2, flagged=False)])  # frame 1 is missing
    with rig.engine.begin() as connection:
        connection.execute(update(evidence).values({column: b"\xff"}))
    rig.verdicts([verdict(3, flagged=False)])
    with rig.engine.begin() as connection:
        row = connection.execute(select(evidence)).one()
    assert row.following == 1
    assert len(unpack_probes(row.waiting)) == waits + 1
    assert len(unpack_tracks(row.track).strip.history) == known


def test_damaged_evidence_of_a_boot_without_new_frames_is_read_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.verdicts([verdict(0, flagged=True), verdict(2, flagged=True)])  # frame 1 is missing
    with rig.engine.begin() as connection:
        connection.execute(update(evidence).values(waiting=b"\xff"))
    after_restart = make_rig(rule=EvidenceRule(patience_s=0))
    with capture_logs() as logs:
        for _ in range(3):
            after_restart.store.read_on()
    assert [each["event"] for each in logs] == ["evidence_damaged"]


@pytest.mark.brokers
async def test_a_damaged_batch_in_kafka_is_skipped_and_counted_and_later_ones_are_recorded(
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
        skipped = scene.metric(damaged, reader="recorder")
        await scene.verdicts([verdict(40)])
        await until(lambda: 40 in scene.recorded())
        (missing,) = RangeSet([(0, 40)]).minus(scene.recorded()).ranges()
        assert missing[1] - missing[0] + 1 == skipped
        assert 0 < skipped <= 4


@pytest.mark.brokers
async def test_a_stalled_partition_continues_at_the_next_readable_record(
    scene: Scene, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "STALL_CHECK_S", 1.0)
    monkeypatch.setattr(damage, "STALL_S", 5.0)
    for seq in range(30):
        # Each record has its own batch and is larger than the 4 KiB between two entries of Kafka's index.
        await scene.verdicts([verdict(seq, preview=bytes(8000))])
    logs = (kafka.folder / "data").glob(f"{scene.settings.verdicts_topic}-*/{0:020d}.log")
    damage_length(max(logs, key=lambda file: file.stat().st_size), 10)
    async with scene.recorder():
        await until(lambda: 29 in scene.recorded())
        (missing,) = RangeSet([(0, 29)]).minus(scene.recorded()).ranges()
        assert missing[0] == 10
        skipped = missing[1] - missing[0] + 1
        assert skipped <= 3
        assert scene.metric("pointillist_kafka_damaged_records_total", reader="recorder") == skipped
