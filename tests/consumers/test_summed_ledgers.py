"""Sums that replace older ledgers of a camera, without changing any count of the audit."""

from __future__ import annotations

import random

import pytest

from consumers.conservation.balance import BootAudit, Counts
from consumers.conservation.ledger_table import UNSETTLED_TIMES
from consumers.conservation.ledgers import SignedLedgers
from consumers.conservation.live import LiveAudit
from consumers.conservation.rounds import LogOffsets
from consumers.recorder.purge import purge
from consumers.settings import Bounds
from schemas.identity import CameraId
from schemas.pointillist_pb2 import DeadLetter, Ledger, Range, Verdict
from tests.consumers.recorder_rig import CAMERA, KEYS, MakeRig, Rig, dead_letter, verdict

KEEP = 3
NOTHING = LogOffsets({}, {}, {})


def counts(rig: Rig) -> dict[str, int]:
    """Return the counts of an audit that reads the whole database."""
    with rig.records() as records:
        signed_ledgers = SignedLedgers.read(records.ledgers(), KEYS).rows
        boots = []
        for camera, boot in sorted({*signed_ledgers, *records.recorded_by_boot(), *records.dead_lettered_by_boot()}):
            audit, row = BootAudit(CameraId(camera), boot), signed_ledgers.get((CameraId(camera), boot))
            audit.take_ledger(row, None, spooled=False)
            audit.recorded.update(records.recorded(camera, boot))
            audit.dead_lettered.update(records.dead_lettered(camera, boot))
            audit.settle(row.confirmed_to if row is not None else None)
            boots.append(audit)
        return Counts.of(boots, records.foreign_count(), records.summed_ledgers().values()).as_dict()


def record_boots(rig: Rig, seed: int, camera: str, *, settled: bool) -> None:
    """Record boots with frames of every fate; unless `settled`, some are open, and frames lost or pending."""
    rng = random.Random(seed)
    verdicts, letters, ledgers = list[Verdict](), list[DeadLetter](), list[Ledger]()
    for boot in range(1, 24):
        following = rng.randrange(1, 12)
        shed = sorted(rng.sample(range(following), rng.randrange(following)))
        known = [seq for seq in range(following) if settled or rng.random() < 0.9]
        verdicts += [verdict(seq, boot=boot) for seq in known if seq not in shed or rng.random() < 0.2]
        for seq in rng.sample(range(following), min(1, following)):
            letters.append(dead_letter(seq, verified=True, boot=boot, camera_id=camera))
        made = Ledger(
            boot_id=boot, revision=1, started_ms=1000 + boot, next=following, closed=settled or rng.random() < 0.8,
            shed=[Range(first=seq, last=seq) for seq in shed], frames_skipped=boot, bytes_resent=2 * boot,
            confirmed_to=following if settled else rng.randrange(following + 1),
        )  # fmt: skip
        ledgers.append(made)
    rig.verdicts(verdicts, camera)
    rig.letters(letters)
    rig.ledgers(ledgers, camera)


def purge_ledgers(rig: Rig, bounds: Bounds) -> None:
    """Purge until no further ledger becomes a sum."""
    left = -1
    while (count := rig.count("ledgers")) != left:
        left = count
        purge(rig.store, bounds)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settled", [True, False])
def test_summing_ledgers_changes_no_count(make_rig: MakeRig, seed: int, settled: bool) -> None:
    bounds = Bounds(camera_ledgers=KEEP)
    rig = make_rig(bounds=bounds)
    record_boots(rig, seed, CAMERA, settled=settled)
    record_boots(rig, seed + 10, "lab/gate", settled=settled)
    live = LiveAudit(rig.url, KEYS)
    watched = live.refresh(NOTHING)
    before = counts(rig)
    purge_ledgers(rig, bounds)
    kept = 2 * KEEP if settled else 2 * UNSETTLED_TIMES * KEEP
    assert rig.count("ledgers") <= kept
    assert rig.count("summed_ledgers") == 2
    assert counts(rig) == before
    fresh = LiveAudit(rig.url, KEYS)
    for after in (live.refresh(NOTHING), fresh.refresh(NOTHING)):
        for name in before:
            if name not in ("frames_pending", "frames_lost"):  # a live audit counts lost frames as pending for a while
                assert (name, after[name]) == (name, watched[name])
        assert after["frames_pending"] + after["frames_lost"] == before["frames_pending"] + before["frames_lost"]  # type: ignore[operator]
    live.close()
    fresh.close()


def test_the_newest_ledgers_of_each_camera_are_kept(make_rig: MakeRig) -> None:
    bounds = Bounds(camera_ledgers=KEEP)
    rig = make_rig(bounds=bounds)
    for boot in range(1, 20):
        rig.verdicts([verdict(0, boot=boot)])
        rig.ledger(Ledger(boot_id=boot, revision=1, next=1, closed=True, confirmed_to=1))
    rig.ledger(Ledger(boot_id=1, revision=1, next=1), "lab/gate")
    purge_ledgers(rig, bounds)
    with rig.records() as records:
        assert [(row.camera, row.boot) for row in records.ledgers()] == [
            *((CAMERA, boot) for boot in (17, 18, 19)),
            ("lab/gate", 1),
        ]


def test_sums_fit_their_columns_for_any_values_in_ledgers(make_rig: MakeRig) -> None:
    bounds = Bounds(camera_ledgers=1)
    rig = make_rig(bounds=bounds)
    for boot in range(1, 30):
        rig.ledger(Ledger(boot_id=boot, revision=1, next=1, frames_skipped=2**63 - 1, bytes_resent=2**63 - 1))
    purge_ledgers(rig, bounds)
    assert rig.count("ledgers") <= UNSETTLED_TIMES


def test_later_sums_are_added_to_earlier_ones(make_rig: MakeRig) -> None:
    bounds = Bounds(camera_ledgers=KEEP)
    rig = make_rig(bounds=bounds)
    live = LiveAudit(rig.url, KEYS)
    for begin in (1, 21):
        for boot in range(begin, begin + 20):
            rig.ledger(
                Ledger(
                    boot_id=boot, revision=1, started_ms=1000 + boot, next=2, closed=True, confirmed_to=2,
                    shed=[Range(first=0, last=1)], frames_skipped=boot,
                )
            )  # fmt: skip
        before = counts(rig)
        live.refresh(NOTHING)
        purge_ledgers(rig, bounds)
        assert counts(rig) == before
        after = live.refresh(NOTHING)
        assert {name: after[name] for name in ("frames_shed", "frames_skipped")} == {
            name: before[name] for name in ("frames_shed", "frames_skipped")
        }
    live.close()
    with rig.records() as records:
        [row] = records.summed_ledgers().values()
    assert (row.ledgers, row.shed, row.started_ms) == (40 - rig.count("ledgers"), 2 * (40 - rig.count("ledgers")), 1001)


def test_a_replayed_ledger_that_was_summed_counts_once(make_rig: MakeRig) -> None:
    bounds = Bounds(camera_ledgers=KEEP)
    rig = make_rig(bounds=bounds)
    made = [
        Ledger(
            boot_id=boot, revision=1, next=2, closed=True, confirmed_to=2, shed=[Range(first=0, last=1)],
            frames_skipped=boot,
        )
        for boot in range(1, 11)
    ]  # fmt: skip
    rig.ledgers(made)
    before = counts(rig)
    purge_ledgers(rig, bounds)
    rig.ledgers(made)
    assert counts(rig) == before
    purge_ledgers(rig, bounds)
    assert (counts(rig), rig.count("ledgers")) == (before, KEEP)
    rig.ledger(Ledger(boot_id=11, revision=1, next=1, closed=True, confirmed_to=1, shed=[Range(first=0, last=0)]))
    assert counts(rig)["frames_shed"] == before["frames_shed"] + 1
    with rig.records() as records:
        kept = {row.boot for row in records.ledgers()}
        assert {boot for _, boot in records.boots()} == kept
