"""What a spool says of itself: its counts, its ledgers' messages, its errors, and what the audit reads of it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from producers.spool import BootLedger, Spool, SpoolLimits, scan_spool
from producers.spool.folder import spool_root
from producers.spool.ledger import ledger_boot, remove_ledger, write_ledger
from producers.spool.segment import HEADER_BYTES
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")


class Clock:
    """A monotonic clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def fill(spool: Spool, count: int, length: int = 100) -> int:
    for _ in range(count):
        spool.append(bytes(length), spool.position, 1000, 1)
    return spool.current.boot_id


def test_a_ledger_message_says_all_that_the_ledger_holds() -> None:
    before_ms = time.time_ns() // 10**6
    ledger = BootLedger(CAMERA, 7, ordinal=3, started_ms=1234, next=20, position=99, shed=RangeSet([(2, 3), (8, 8)]))
    ledger.revision, ledger.closed, ledger.confirmed_to = 5, True, 9
    ledger.frames_skipped, ledger.frames_resent, ledger.bytes_resent = 11, 12, 13
    message = ledger.to_message()
    assert (message.boot_id, message.revision, message.started_ms, message.first, message.next) == (7, 5, 1234, 0, 20)
    assert [(shed.first, shed.last) for shed in message.shed] == [(2, 3), (8, 8)]
    assert (message.closed, message.confirmed_to) == (True, 9)
    assert (message.frames_skipped, message.frames_resent, message.bytes_resent) == (11, 12, 13)
    assert before_ms <= message.written_ms <= time.time_ns() // 10**6


def test_the_audit_reads_what_the_ledger_counts(tmp_path: Path) -> None:
    before_ms = time.time_ns() // 10**6
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 4)
    spool.current.frames_skipped = 6
    spool.ledgers.count_resent(boot_id, 100)
    spool.ledgers.count_resent(boot_id, 50)
    spool.ledgers.revise(spool.current)
    [boot] = scan_spool(tmp_path)
    assert (boot.frames_skipped, boot.frames_resent, boot.bytes_resent) == (6, 2, 150)
    assert (boot.revision, boot.closed) == (2, False)
    assert before_ms <= boot.started_ms <= time.time_ns() // 10**6
    spool.close()


def test_the_spools_of_a_state_folder_lie_in_its_folder_spool() -> None:
    assert spool_root(Path("state")) == Path("state/spool")


def test_a_file_that_only_ends_like_a_ledger_is_of_no_boot(tmp_path: Path) -> None:
    write_ledger(tmp_path, BootLedger(CAMERA, 1, 1, 1000, next=3))
    (tmp_path / "notes.ledger.json").write_text("?")
    assert ledger_boot(tmp_path / "notes.ledger.json") == 0
    spool = Spool(tmp_path, CAMERA)
    assert spool.ledgers.of(1).next == 3
    spool.close()


def test_a_ledger_that_is_removed_leaves_no_copy(tmp_path: Path) -> None:
    write_ledger(tmp_path, BootLedger(CAMERA, 7, 1, 1000))
    remove_ledger(tmp_path, 7)
    remove_ledger(tmp_path, 8)
    assert list(tmp_path.iterdir()) == []


def test_payload_bytes_are_those_of_the_frames_that_wait(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    boot_id = fill(spool, 4, 1000)
    assert spool.payload_bytes == 4000
    spool.confirm(boot_id, [(0, 1)])
    assert spool.payload_bytes == 2000
    fill(spool, 400, 1000)
    assert spool.payload_bytes == 1000 * spool.frames
    spool.close()
    again = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    assert again.payload_bytes == 1000 * again.frames > 0
    again.close()


def test_frames_are_sent_in_the_order_of_publication(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 4)
    spool.confirm(boot_id, [(1, 1)])
    taken = []
    while (key := spool.peek_unsent()) is not None:
        taken.append(key)
        spool.take_unsent()
    assert taken == [(boot_id, 0), (boot_id, 2), (boot_id, 3)]
    spool.close()


def test_a_range_that_is_longer_than_what_waits_frees_its_last_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 4)
    spool.confirm(boot_id, [(0, 1)])
    assert spool.confirm(boot_id, [(0, 3)]) == [(boot_id, 2), (boot_id, 3)]
    spool.close()


def test_a_spool_that_is_full_to_the_byte_sheds_nothing_and_one_frame_more_the_oldest(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    fill(spool, 184, 1000)
    fill(spool, 1, 200_000 - spool.bytes - HEADER_BYTES)
    assert (spool.bytes, len(spool.current.shed)) == (200_000, 0)
    fill(spool, 1, 0)
    assert 0 in spool.current.shed
    assert spool.bytes < 200_000
    spool.close()


def test_of_two_frames_that_are_too_large_together_the_newer_one_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**12))
    boot_id = fill(spool, 2, 3000)
    assert spool.get((boot_id, 0)) is None
    assert spool.get((boot_id, 1)) is not None
    assert list(spool.current.shed) == [0]
    spool.close()


@pytest.mark.parametrize(
    ("ranges", "freed"),
    [([(0, 2**52)], [0, 1, 2, 3]), ([(3, 2**52)], [3]), ([(1, 2)], [1, 2]), ([(2, 2)], [2]), ([(0, 3)], [0, 1, 2, 3])],
)
def test_a_confirmation_frees_both_ends_of_its_ranges(
    tmp_path: Path, ranges: list[tuple[int, int]], freed: list[int]
) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 4)
    assert [seq for _, seq in spool.confirm(boot_id, ranges)] == freed
    spool.close()


def test_only_a_revision_that_was_made_and_is_news_is_confirmed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 1)
    spool.ledgers.revise(spool.current)
    boot_id = spool.current.boot_id
    told = [spool.ledgers.confirm(boot, revision) for boot, revision in ((boot_id, 3), (boot_id + 1, 2), (boot_id, 2))]
    assert told == [False, False, True]
    assert not spool.ledgers.confirm(boot_id, 2)
    assert not spool.ledgers.confirm(boot_id, 1)
    assert spool.current.confirmed_revision == 2
    spool.close()


def test_a_segment_is_as_large_and_as_old_as_it_may_be(tmp_path: Path) -> None:
    clock = Clock()
    clock.now_s = 50.0
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**20, max_age_s=160), clock)
    fill(spool, 64, 2**10 - 60)  # 64 KiB to the byte
    assert len(list(tmp_path.glob("*.segment"))) == 1
    fill(spool, 1)
    assert len(list(tmp_path.glob("*.segment"))) == 2
    clock.now_s += 10
    fill(spool, 1)
    assert len(list(tmp_path.glob("*.segment"))) == 2
    clock.now_s += 0.001
    fill(spool, 1)
    assert len(list(tmp_path.glob("*.segment"))) == 3
    clock.now_s += 10
    fill(spool, 1)
    assert len(list(tmp_path.glob("*.segment"))) == 3
    clock.now_s += 0.001
    fill(spool, 1)
    assert len(list(tmp_path.glob("*.segment"))) == 4
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.segment")} == {0o600}
    spool.close()


def test_a_spool_that_cannot_be_written_says_where_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA)
    real = os.open

    def refuse(path: str | Path, flags: int, *rest: int) -> int:
        if str(path).endswith(".segment"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StateError) as raised:
            fill(spool, 1)
    assert str(raised.value) == f"the spool {tmp_path} cannot be written: {os.strerror(errno.EROFS)}"
    assert spool.frames == 0
    fill(spool, 1)
    spool.close()


def test_damage_found_at_a_read_names_the_file_and_the_camera(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 2)
    frame = spool.get((boot_id, 0))
    assert frame is not None
    with frame.segment.path.open("r+b") as file:
        file.seek(frame.offset)
        file.write(b"x")
    with capture_logs() as logs, pytest.raises(StateError, match="does not hold frame 0 as it was written"):
        spool.read(frame)
    [entry] = logs
    assert entry == {
        "event": "spool_frames_damaged",
        "log_level": "error",
        "camera": CAMERA,
        "file": str(frame.segment.path),
        "frames": 1,
    }
    assert spool.payload_bytes == 100
    assert 0 in spool.current.shed
    assert spool.current.revision == 2
    spool.close()
