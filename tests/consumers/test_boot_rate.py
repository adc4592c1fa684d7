"""The rate limit of boots: those beyond about one per second become dead letters, and each frame keeps a fate."""

from __future__ import annotations

import time

from benchmarks.harness.recorder_store import MadeRecord
from consumers.recorder.recorder import BURST_BOOTS
from consumers.records.batch import read
from schemas.pointillist_pb2 import Ledger
from schemas.ranges import RangeSet
from schemas.runtime.boot_rate import BootRate
from tests.consumers.recorder_rig import CAMERA, RECORDER_KEYS, Rig, signed, verdict
from tests.consumers.test_summed_ledgers import counts

BURST = 5
BOOTS = 20


def feed(rig: Rig, records: list[MadeRecord], boots: BootRate) -> None:
    """Write records in one transaction, with the rate limiter `boots`."""
    batch = read(records, rig.settings, RECORDER_KEYS, time.time_ns() // 10**6, boots)
    rig.store.write(batch, {partition: rig.offsets.get(partition) for partition in batch.offsets})
    rig.offsets |= {partition: following for partition, (_, following) in batch.offsets.items()}


def run_boots(rig: Rig, boots: BootRate, every_ms: int) -> dict[str, int]:
    """Record a camera that starts `BOOTS` times, each time with two frames and a ledger. Return the counts."""
    for boot in range(1, BOOTS + 1):
        message = Ledger(boot_id=boot, revision=1, next=2, closed=True, confirmed_to=2)
        records = rig.verdict_records(verdict(seq, boot=boot) for seq in range(2))
        records.append(rig.record(rig.settings.events_topic, CAMERA.encode(), signed(message), "Ledger"))
        for record in records:
            record.timestamp = 10**12 + boot * every_ms
        feed(rig, records, boots)
    return counts(rig)


def test_frames_of_boots_that_come_too_fast_are_dead_lettered_and_counted(rig: Rig) -> None:
    found = run_boots(rig, BootRate(BURST), every_ms=0)
    assert found["frames_recorded"] == 2 * BURST
    assert found["frames_dead_lettered"] == 2 * (BOOTS - BURST)
    assert (found["frames_published"], found["frames_lost"]) == (2 * BOOTS, 0)
    assert found["frames_foreign"] == BOOTS - BURST  # their ledgers
    assert rig.count("ledgers") == BURST
    with rig.records() as records:
        assert records.dead_lettered(CAMERA, BOOTS) == RangeSet([(0, 1)])


def test_a_camera_that_restarts_every_second_is_always_recorded(rig: Rig) -> None:
    found = run_boots(rig, BootRate(1), every_ms=1000)
    assert (found["frames_recorded"], found["frames_dead_lettered"], found["frames_foreign"]) == (2 * BOOTS, 0, 0)


def test_a_recorder_accepts_larger_bursts_of_boots_than_bridges_do() -> None:
    from producers.bridge.quota import BURST_BOOTS as BRIDGE_BURST_BOOTS

    assert BURST_BOOTS >= 16 * BRIDGE_BURST_BOOTS
