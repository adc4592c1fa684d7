"""What a spool does at its edges: rebuilt ledgers, damaged and foreign frames, files that cannot be written."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import producers.spool.ledgers as ledgers_module
from producers.spool import Spool, SpoolLimits
from producers.spool.segment import read_segment
from producers.spool.writing import DiskFullError, SegmentWriter
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.messages.frame import Encoding, encode_frame
from schemas.ranges import RangeSet
from tests.producers.test_spool_damage import (
    CAMERA,
    FRAMES,
    ROOM,
    fill,
    flip,
    payload_of,
    scanned,
    segments_of,
)


def test_a_rebuilt_ledger_holds_what_the_segments_tell_and_takes_the_rest_for_shed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 2 * FRAMES)
    spool.close()
    files = [read_segment(path) for path in segments_of(tmp_path)]
    assert len(files) > 4
    for path in segments_of(tmp_path)[:3:2]:
        path.unlink()
    for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
        flip(copy, 60)
    before_ms = time.time_ns() // 10**6
    again = Spool(tmp_path, CAMERA, ROOM)
    after_ms = time.time_ns() // 10**6
    [ledger] = [each for each in again.ledgers.unsettled() if each.boot_id == boot_id]
    gone = RangeSet((file.first, file.next - 1) for place, file in enumerate(files) if file and place in (0, 2))
    assert (ledger.next, ledger.position, ledger.shed) == (2 * FRAMES, 2 * FRAMES, gone)
    assert ledger.to_message().revision == ledger.revision
    assert before_ms <= ledger.revision <= after_ms + 1  # and one more, by which it is closed
    assert files[1] is not None
    assert (ledger.ordinal, ledger.started_ms) == (0, 1000 + files[1].first)
    assert again.current.ordinal == 1
    again.close()


def test_a_damaged_frame_costs_neither_its_file_nor_an_error_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    first = segments_of(tmp_path)[0]
    flip(first, first.read_bytes().index(payload_of(1)))
    frame = spool.get((boot_id, 1))
    assert frame is not None

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(ledgers_module, "write_ledger", full)
        with pytest.raises(StateError, match="frame 1 as it was written"):
            spool.read(frame)
    assert first.exists()
    assert [ledger.boot_id for ledger in spool.ledgers.outdated()] == [boot_id]
    content = read_segment(first)
    assert content is not None
    spool.confirm(boot_id, [(0, 0), (2, content.next - 2)])
    last = spool.get((boot_id, content.next - 1))
    assert last is not None
    flip(first, first.read_bytes().index(payload_of(content.next - 1)))
    with pytest.raises(StateError):
        spool.read(last)
    assert not first.exists()
    spool.close()
    assert scanned(tmp_path, boot_id).shed == RangeSet([(1, 1), (content.next - 1, content.next - 1)])


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_frame_of_exactly_the_age_bound_stays_and_an_empty_open_file_stays(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**20, max_age_s=100), clock)
    boot_id = fill(spool, 1)
    clock.now_s = 100.0
    spool.shed_old()
    assert spool.frames == 1
    clock.now_s = 100.001
    spool.confirm(boot_id, [(0, 0)])
    [path] = segments_of(tmp_path)
    spool.shed_old()
    assert segments_of(tmp_path) == [path]
    assert not spool.current.shed
    fill(spool, 1)
    clock.now_s = 300.0
    spool.shed_old()
    assert (spool.frames, spool.current.shed) == (0, RangeSet([(1, 1)]))
    spool.close()


def key_of(generation: int) -> CameraKey:
    return derive_camera_key(b"a fleet secret of thirty-two byte", CameraId(CAMERA), generation)


def signed(generation: int, seq: int) -> bytes:
    return encode_frame(key_of(generation), 7, seq, 1000, np.zeros((8, 8, 1), np.uint8), Encoding(0))


@pytest.mark.parametrize("damaged", [0, 1, 3])
def test_frames_under_another_key_are_shed_and_counted_though_some_are_damaged(tmp_path: Path, damaged: int) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    payloads = [signed(2, seq) for seq in range(3)]
    for seq, payload in enumerate(payloads):
        spool.append(payload, seq, 1000, 1)
    assert spool.shed_signed_otherwise(key_of(2)) == 0
    [path] = segments_of(tmp_path)
    for payload in payloads[:damaged]:
        flip(path, path.read_bytes().index(payload) + 12)
    assert spool.shed_signed_otherwise(key_of(3)) == 3
    assert spool.frames == 0
    assert spool.current.shed == RangeSet([(0, 2)])
    assert spool.shed_signed_otherwise(key_of(3)) == 0
    spool.close()


def test_frames_of_another_fleet_or_an_earlier_format_are_shed_though_their_generation_is_right(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    spool.append(signed(2, 0), 0, 1000, 1)
    other = derive_camera_key(b"the secret of another fleet of ours", CameraId(CAMERA), 2)
    assert spool.shed_signed_otherwise(key_of(2)) == 0
    assert spool.shed_signed_otherwise(other) == 1
    spool.close()


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be written") as caught:
        SegmentWriter(tmp_path / "gone", 2**16, 1000.0).begin(7, 0, 0)
    assert not isinstance(caught.value, DiskFullError)
