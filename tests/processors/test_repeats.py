"""The cache of verdicts for repeated frames."""

from __future__ import annotations

from processors.results.records import OutgoingRecord
from processors.results.repeats import Repeats
from schemas.identity import CameraId, Identity


def identity(seq: int) -> Identity:
    return Identity(CameraId("site/cam"), 1, seq)


def record(seq: int) -> OutgoingRecord:
    return OutgoingRecord(b"site/cam", b"%d" % seq, [])


def test_the_least_recently_used_verdict_is_removed_first() -> None:
    repeats = Repeats(3)
    for seq in range(3):
        repeats.remember(identity(seq), record(seq))
    assert repeats.find(identity(0)) is not None
    repeats.remember(identity(3), record(3))
    assert len(repeats) == 3
    assert repeats.find(identity(1)) is None
    found = repeats.find(identity(0))
    assert found is not None
    assert found.value == b"0"
