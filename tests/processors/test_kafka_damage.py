"""One flipped bit in Kafka's log costs the frames of its batch, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.kafka import Kafka
from tests.kafka_files import damage_batch
from tests.processors.rig import rig, until
from tests.processors.tiny import payload, write_bundle

CAMERA = "site/cam"
BATCH = 4


@pytest.mark.brokers
async def test_a_damaged_batch_of_frames_is_passed_over_and_counted_and_those_behind_it_are_classified(
    kafka: Kafka, tmp_path: Path
) -> None:
    async with rig(kafka.bootstrap, write_bundle(tmp_path / "bundle")) as made:
        for first in range(0, 5 * BATCH, BATCH):
            frames = [(CAMERA, payload(CAMERA, seq)) for seq in range(first, first + BATCH)]
            await made.publish(frames, partition=0)
        await made.publish([(CAMERA, payload(CAMERA, 100))], partition=1)
        damage_batch(kafka.folder / "data" / f"{made.topic('frames')}-0" / f"{0:020d}.log", 2)
        async with made.processor() as running:
            await until(lambda: len(made.verdicts) >= 4 * BATCH + 1)
            assert running.metric("pointillist_kafka_damaged_records_total", reader="processor") == BATCH
            await made.publish([(CAMERA, payload(CAMERA, 200))], partition=0)
            await until(lambda: len(made.verdicts) >= 4 * BATCH + 2)
    seqs = {seq for _, _, seq in made.verdicts}
    assert seqs == {*range(2 * BATCH), *range(3 * BATCH, 5 * BATCH), 100, 200}
