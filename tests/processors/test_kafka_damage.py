"""One flipped bit in Kafka's log loses the frames of its batch and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.kafka import Kafka
from schemas.transport.kafka import damage
from tests.kafka_files import damage_batch, damage_length
from tests.processors.rig import Running, start_rig
from tests.processors.tiny import payload, write_bundle
from tests.waiting import until

CAMERA = "site/cam"
BATCH = 4


def skipped(running: Running) -> float:
    return running.metric("pointillist_kafka_damaged_records_total", reader="processor")


@pytest.mark.brokers
async def test_a_damaged_batch_of_frames_is_skipped_and_counted_and_later_frames_are_classified(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.transport.kafka.damage.CAREFUL_S", 60.0)
    async with start_rig(kafka.bootstrap, write_bundle(tmp_path / "bundle")) as rig:
        for first in range(0, 5 * BATCH, BATCH):
            frames = [(CAMERA, payload(CAMERA, seq)) for seq in range(first, first + BATCH)]
            await rig.publish(frames, partition=0)
        await rig.publish([(CAMERA, payload(CAMERA, 100))], partition=1)
        damage_batch(kafka.folder / "data" / f"{rig.topic('frames')}-0" / f"{0:020d}.log", 2)
        async with rig.processor() as running:
            await until(lambda: len(rig.verdicts) + skipped(running) == 5 * BATCH + 1)
            lost = skipped(running)
            await rig.publish([(CAMERA, payload(CAMERA, 200))], partition=0)
            await until(lambda: len(rig.verdicts) + lost == 5 * BATCH + 2)
    seqs = {seq for _, _, seq in rig.verdicts}
    missing = sorted(set(range(5 * BATCH)) - seqs)
    assert {100, 200} < seqs
    assert 0 < lost <= BATCH
    assert missing == list(range(missing[0], missing[0] + int(lost)))


@pytest.mark.brokers
async def test_a_stalled_partition_resumes_at_the_next_readable_record(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "STALL_CHECK_S", 1.0)
    monkeypatch.setattr(damage, "STALL_S", 5.0)
    async with start_rig(kafka.bootstrap, write_bundle(tmp_path / "bundle")) as rig:
        for first in range(0, 8 * BATCH, BATCH):
            frames = [(CAMERA, payload(CAMERA, seq)) for seq in range(first, first + BATCH)]
            await rig.publish(frames, partition=0)
        damage_length(kafka.folder / "data" / f"{rig.topic('frames')}-0" / f"{0:020d}.log", 2)
        async with rig.processor() as running:
            await until(lambda: 8 * BATCH - 1 in {seq for _, _, seq in rig.verdicts})
            await until(lambda: len(rig.verdicts) + skipped(running) == 8 * BATCH)
    missing = sorted(set(range(8 * BATCH)) - {seq for _, _, seq in rig.verdicts})
    # The damaged batch is lost, and all batches up to the next entry of Kafka's index, which has one for each 4 KiB.
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert len(missing) <= 3 * BATCH
