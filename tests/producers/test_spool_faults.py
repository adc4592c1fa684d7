"""Faults of a spool: failing system calls, missing files, and another key of the camera cost no other frame."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from producers.camera.camera_settings import CameraSettings
from producers.spool import Spool, SpooledFrame, SpoolLimits, ledgers, scan_spool
from producers.spool.files import OpenFile, OpenFiles
from producers.spool.folder import install_id
from producers.spool.ledger import BootLedger, write_ledger
from producers.spool.segment import HEADER_BYTES
from producers.spool.writing import DiskFullError, SegmentWriter
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.messages.frame import Encoding, encode_frame
from schemas.ranges import RangeSet
from tests.clocks import Clock
from tests.producers.fleet_rig import offline_camera
from tests.producers.spool_rig import (
    CAMERA,
    FRAMES,
    PAYLOAD_BYTES,
    ROOM,
    fill,
    first_of,
    flip,
    kill,
    ledger_copies,
    ledger_of,
    payload_of,
    readable,
    refuse,
    scanned,
    segments_of,
)

SMALL = SpoolLimits(max_bytes=2**12)


@pytest.fixture
def open_files(monkeypatch: pytest.MonkeyPatch) -> OpenFiles:
    """Yield the open files of this test alone: spools of other tests in this process may still have some."""
    files = OpenFiles(512)
    monkeypatch.setattr("producers.spool.files.OPEN_FILES", files)
    return files


def frame_of(spool: Spool, boot_id: int, seq: int) -> SpooledFrame:
    frame = spool.get((boot_id, seq))
    assert frame is not None
    return frame


def key_of(generation: int = 0, secret: bytes = b"a fleet secret for the tests") -> CameraKey:
    return derive_camera_key(secret, CAMERA, generation)


def fill_signed(spool: Spool, count: int, generation: int = 0) -> int:
    """Append signed frames and return the boot id."""
    boot_id = spool.current.boot_id
    for seq in range(count):
        picture = np.zeros((8, 8, 1), np.uint8)
        spool.append(encode_frame(key_of(generation), boot_id, seq, 1000, picture, Encoding()), seq, 1000, 1)
    return boot_id


def test_a_temporarily_unreadable_frame_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA)
    frame = frame_of(spool, fill(spool, 1), 0)
    for call, problem, message in (("open", errno.EMFILE, "Too many open files"), ("pread", errno.EIO, "Input/output")):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse(problem))
            with pytest.raises(StateError, match=message):
                spool.read(frame)
        assert spool.read(frame) == payload_of(0)
    assert spool.frames == 1
    spool.close()


def test_a_frame_unreadable_for_a_minute_is_damaged_and_the_others_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, ROOM, clock)
    boot_id = fill(spool, 4)
    bad = [frame_of(spool, boot_id, seq) for seq in (1, 2)]
    pread = os.pread

    def unreadable(fd: int, length: int, offset: int) -> bytes:
        return refuse(errno.EIO)() if offset in {frame.offset for frame in bad} else pread(fd, length, offset)

    def attempts(frame: SpooledFrame, count: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", unreadable)
            for _ in range(count):
                with pytest.raises(StateError, match="Input/output"):
                    spool.read(frame)
                clock.now_s += 20

    attempts(bad[0], 3)
    assert spool.read(bad[0]) == payload_of(1)  # the fault has passed, and a later fault has a minute again
    attempts(bad[0], 3)
    assert spool.frames == 4
    attempts(bad[0], 1)
    attempts(bad[1], 1)  # the same file gets no further minute
    assert set(scanned(tmp_path, boot_id).shed) == {1, 2}
    assert readable(spool, boot_id) == RangeSet.of((0, 3))
    spool.close()


def test_unreadable_blocks_at_the_start_lose_only_their_own_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 20)
    kill(spool)
    record_bytes, pread, read_bytes = HEADER_BYTES + PAYLOAD_BYTES, os.pread, Path.read_bytes

    def unreadable(fd: int, length: int, offset: int) -> bytes:
        return refuse(errno.EIO)() if offset <= 10_000 < offset + length else pread(fd, length, offset)

    def whole(path: Path) -> bytes:
        return refuse(errno.EIO)() if path.suffix == ".segment" else read_bytes(path)

    monkeypatch.setattr(os, "pread", unreadable)
    monkeypatch.setattr(Path, "read_bytes", whole)
    lost = {seq for seq in range(20) if seq * record_bytes < 12_288 and (seq + 1) * record_bytes > 8_192}
    spool = Spool(tmp_path, CAMERA, ROOM)
    monkeypatch.undo()
    assert set(ledger_of(spool, boot_id).shed) == lost
    assert readable(spool, boot_id) == RangeSet.of(set(range(20)) - lost)
    spool.close()


def test_spools_of_a_fleet_share_a_limited_number_of_open_files(tmp_path: Path, open_files: OpenFiles) -> None:
    open_files.limit = 3
    spools = [Spool(tmp_path / str(number), CameraId(f"local/cam-{number}")) for number in range(5)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for seq in range(4):
        for number, spool in enumerate(spools):
            spool.append(payload_of(10 * number + seq), seq, 1000 + seq, 1)
            assert spool.read(frame_of(spool, spool.current.boot_id, seq)) == payload_of(10 * number + seq)
            assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
    boots = [spool.current.boot_id for spool in spools]
    for spool in spools:
        spool.close()
    assert len(open_files) == 0
    for number, boot_id in enumerate(boots):
        again = Spool(tmp_path / str(number), CameraId(f"local/cam-{number}"))
        frames = [again.read(frame_of(again, boot_id, seq)) for seq in range(4)]
        assert frames == [payload_of(10 * number + seq) for seq in range(4)]
        assert not scanned(tmp_path / str(number), boot_id).shed
        again.close()


def test_at_the_systems_limit_the_least_recently_used_file_is_closed(tmp_path: Path, open_files: OpenFiles) -> None:
    first, second = (OpenFile(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("first", "second"))
    os.write(first.use(), b"one")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        # The lowest free descriptor is the first forbidden one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        os.write(second.use(), b"two")
        assert os.pread(first.use(), 3, 0) == b"one"
        assert len(open_files) == 1
        first.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("step", ["append", "close"])
def test_an_error_while_closing_a_file_to_free_a_descriptor_is_raised_at_its_next_use(
    tmp_path: Path, open_files: OpenFiles, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def close_and_fail(fd: int, close: Callable[[int], None] = os.close) -> None:
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    open_files.limit = 1
    spool, other = Spool(tmp_path / "spool", CAMERA), Spool(tmp_path / "other", CameraId("local/other"))
    fill(spool, 1)
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.files.os.close", close_and_fail)
        fill(other, 1)
    with pytest.raises(StateError, match="Input/output"):
        fill(spool, 1) if step == "append" else spool.close()
    fill(other, 1)
    if step == "append":
        fill(spool, 1)
        spool.close()
    other.close()


def test_a_file_deleted_while_it_was_closed_is_not_recreated(tmp_path: Path, open_files: OpenFiles) -> None:
    open_files.limit = 1
    spool, other = Spool(tmp_path / "spool", CAMERA), Spool(tmp_path / "other", CameraId("local/other"))
    boot_id = fill(spool, 2)
    removed = frame_of(spool, boot_id, 0).segment.path
    fill(other, 1)
    removed.unlink()
    with pytest.raises(StateError, match="No such file"):
        fill(spool, 1)
    assert not removed.exists()
    fill(spool, 1)
    assert spool.read(frame_of(spool, boot_id, 2)) == payload_of(2)
    spool.close()
    other.close()


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_frames_missing_in_a_deleted_or_cut_file_are_shed_and_other_files_stay(tmp_path: Path, how: str) -> None:
    spool = Spool(tmp_path, CAMERA, SMALL)
    boot_id = fill(spool, 60, 7)
    spool.close()
    again = Spool(tmp_path, CAMERA, SMALL)
    lost = again.get((boot_id, 59))
    assert lost is not None
    first, path = lost.segment.first, lost.segment.path
    assert first > 0
    path.unlink() if how == "removed" else os.truncate(path, 10)
    shed: list[tuple[int, int]] = []
    again.on_shed = shed.extend
    for seq in [59] if how == "removed" else range(first, 60):
        with pytest.raises(StateError, match="is missing" if how == "removed" else "as it was written"):
            again.read(frame_of(again, boot_id, seq))
    assert [seq for _, seq in shed] == list(range(first, 60))
    assert [seq for seq in range(60) if again.get((boot_id, seq))] == list(range(first))
    assert again.ledgers.outdated() == []  # the ledger that lists them is written
    again.close()
    assert list(scanned(tmp_path, boot_id).shed) == list(range(first, 60))


def test_a_deleted_file_is_not_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Spool(tmp_path, CAMERA)
    boot_id = fill(first, 2)
    first.close()
    spool = Spool(tmp_path, CAMERA)
    opened: list[int] = []
    real = os.open

    def noted(path: str | Path, flags: int, mode: int = 0o777) -> int:
        opened.append(real(path, flags, mode))
        return opened[-1]

    frame = frame_of(spool, boot_id, 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noted)
        spool.read(frame)
    [fd] = opened
    os.fstat(fd)
    spool.confirm(boot_id, [(0, 1)])
    assert not frame.segment.path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    spool.close()


def test_a_file_that_cannot_be_deleted_revokes_no_confirmation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Spool(tmp_path, CAMERA)
    boot_id = fill(first, 2)
    first.close()
    spool = Spool(tmp_path, CAMERA)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse(errno.EIO))
        assert len(spool.confirm(boot_id, [(0, 1)])) == 2
    assert spool.frames == 0
    spool.close()


def test_a_system_error_is_one_line_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.spool.recover", refuse(errno.EIO))
        with pytest.raises(StateError, match="Input/output error"):
            Spool(tmp_path, CAMERA)
    spool = Spool(tmp_path, CAMERA)  # the lock was released
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse(errno.EROFS))
        with pytest.raises(StateError) as raised:
            fill(spool, 1)
    expected = f"spool {tmp_path}: expected a writable folder, got {os.strerror(errno.EROFS)}. Check the disk."
    assert str(raised.value) == expected
    assert spool.frames == 0
    fill(spool, 1)
    spool.close()
    with pytest.raises(StateError, match="expected a writable folder") as raised:
        SegmentWriter(tmp_path / "gone", 2**16, 1000.0).begin(7, 0, 0)
    assert not isinstance(raised.value, DiskFullError)


def test_an_empty_segment_left_by_failed_writes_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_age_s=160), clock)
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", refuse(errno.EIO))
        with pytest.raises(StateError):
            fill(spool, 1)
    clock.now_s = 20  # the empty segment is too old: it is ended and removed
    with monkeypatch.context() as broken:
        broken.setattr("producers.spool.ledgers.write_ledger", refuse(errno.EIO))
        with pytest.raises(StateError):
            fill(spool, 1)
    boot_id = fill(spool, 3)
    assert spool.confirm(boot_id, [(0, 0)]) == [(boot_id, 0)]
    clock.now_s = 40
    fill(spool, 1)
    assert readable(spool, boot_id) == RangeSet([(1, 3)])
    assert spool.bytes == sum(path.stat().st_size for path in segments_of(tmp_path))
    kill(spool)
    assert readable(Spool(tmp_path, CAMERA), boot_id) == RangeSet([(1, 3)])


def test_the_bound_holds_for_small_segments_of_many_boots_while_no_ledger_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SpoolLimits(max_bytes=200_000)
    for frames, length in [(1, 100)] * 8 + [(5, 30_000)]:
        spool = Spool(tmp_path, CAMERA, limits)
        fill(spool, frames, length)
        kill(spool)
    spool = Spool(tmp_path, CAMERA, limits)
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", refuse(errno.ENOSPC))
        # The second frame exceeds the bound. To return to it, all small segments have to go, and a large one.
        boot_id = fill(spool, 2, 30_000)
    assert spool.bytes <= limits.max_bytes
    assert all(spool.get((boot_id, seq)) for seq in range(2))
    spool.close()


def test_a_start_without_space_for_a_ledger_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", refuse(errno.ENOSPC))
        with pytest.raises(DiskFullError):
            Spool(tmp_path, CAMERA)
    Spool(tmp_path, CAMERA).close()


def test_the_ledger_of_a_full_segment_is_saved_once_an_older_boot_has_made_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    fill(spool, 1)
    kill(spool)
    spool = Spool(tmp_path, CAMERA, ROOM)
    real = write_ledger
    refused: list[int] = []
    saved: list[int] = []

    def refuse_first(folder: Path, ledger: BootLedger) -> None:
        if ledger is spool.current and not refused:
            refused.append(ledger.next)
            refuse(errno.ENOSPC)()
        real(folder, ledger)
        if ledger is spool.current:
            saved.append(ledger.next)

    monkeypatch.setattr(ledgers, "write_ledger", refuse_first)
    while not refused:
        fill(spool, 1)
    assert saved == refused
    spool.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_disk_without_space_for_another_file_loses_only_the_oldest_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    oldest, second, *_ = segments = segments_of(tmp_path)
    real = os.open

    def open_file(path: Path, flags: int, mode: int = 0o777) -> int:
        full = flags & os.O_CREAT and not path.exists() and len(segments_of(tmp_path)) >= len(segments)
        return refuse(errno.ENOSPC)() if full else real(path, flags, mode)

    monkeypatch.setattr(os, "open", open_file)
    if restarts:
        kill(spool)
        spool = Spool(tmp_path, CAMERA, ROOM)
    else:
        fill(spool, first_of(second))
    ledger = ledger_of(spool, boot_id)
    assert not oldest.exists()
    assert ledger.shed == scanned(tmp_path, boot_id).shed == RangeSet([(0, first_of(second) - 1)])
    assert len(readable(spool, boot_id)) == min(ledger.next, FRAMES + 20) - first_of(second)
    spool.close()


async def test_a_failed_construction_of_a_camera_releases_its_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, key = CameraSettings(camera_id=CAMERA), key_of(1)

    def reject(*_: object) -> None:
        raise ConfigError("a certificate that is damaged")

    with monkeypatch.context() as patch:
        patch.setattr("producers.camera.camera.Publisher", reject)
        with pytest.raises(ConfigError, match="damaged"):
            offline_camera(settings, key, tmp_path)
    offline_camera(settings, key, tmp_path).spool.close()


@pytest.mark.parametrize("damaged", [0, 1, 3])
@pytest.mark.parametrize("other", [key_of(3), key_of(2, b"the secret of another fleet of ours")])
def test_frames_signed_with_another_key_are_shed_and_counted_even_if_some_are_damaged(
    tmp_path: Path, damaged: int, other: CameraKey
) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill_signed(spool, 4, 2)
    spool.confirm(boot_id, [(3, 3)])
    assert spool.shed_signed_otherwise(key_of(2)) == 0
    [path] = segments_of(tmp_path)
    for seq in range(damaged):
        flip(path, frame_of(spool, boot_id, seq).offset + 12)
    assert spool.shed_signed_otherwise(other) == 3
    assert (spool.frames, list(spool.current.shed)) == (0, [0, 1, 2])
    assert spool.shed_signed_otherwise(other) == 0
    spool.close()


@pytest.mark.parametrize(("generation", "shed"), [(0, 0), (3, 3)])
async def test_a_camera_counts_damaged_frames_damaged_ledgers_and_frames_of_another_key(
    tmp_path: Path, generation: int, shed: int
) -> None:
    first = Spool(tmp_path, CAMERA)
    boot_id = fill_signed(first, 4)
    damaged = frame_of(first, boot_id, 2)
    flip(damaged.segment.path, damaged.offset)
    first.close()
    for copy in ledger_copies(tmp_path, boot_id):
        copy.write_text("{}")
    registry = CollectorRegistry()
    camera = offline_camera(CameraSettings(camera_id=CAMERA), key_of(generation), tmp_path, registry)

    def counted() -> tuple[float | None, ...]:
        kinds = [registry.get_sample_value("pointillist_spool_damaged_total", {"kind": w}) for w in ("frame", "ledger")]
        return *kinds, registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"})

    assert counted() == (1, 1, 1 + shed)
    assert camera.spool.frames == 3 - shed
    assert len(scanned(tmp_path, boot_id).shed) == 1 + shed
    if not shed:
        frame = frame_of(camera.spool, boot_id, 1)
        flip(frame.segment.path, frame.offset)
        with pytest.raises(StateError):
            camera.spool.read(frame)
        camera.tick(0.0)
        assert counted() == (2, 1, 2)
    await camera.close(0.1)


def test_an_unreadable_ledger_is_replaced_by_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 5)
    spool.confirm(boot_id, [(0, 2)])
    spool.close()
    read_bytes = Path.read_bytes

    def unreadable(path: Path) -> bytes:
        return refuse(errno.EIO)() if path.name.endswith(".ledger.json") else read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    assert [(boot.next, boot.waiting) for boot in scan_spool(tmp_path)] == [(5, RangeSet.of((3, 4)))]
    spool = Spool(tmp_path, CAMERA, ROOM)
    monkeypatch.undo()
    assert spool.take_damage() == (0, 0)
    assert readable(spool, boot_id) == RangeSet.of((3, 4))
    spool.close()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 16, b"\0" * 16])
def test_a_damaged_installation_id_is_replaced(tmp_path: Path, damage: bytes) -> None:
    spool = Spool(tmp_path, CAMERA)
    before = spool.install_id
    spool.close()
    (tmp_path / "install").write_bytes(damage)
    ids = []
    for _ in range(2):
        spool = Spool(tmp_path, CAMERA)
        ids.append(spool.install_id)
        spool.close()
    assert ids[0] == ids[1] != before
    assert int(ids[0], 16)


@pytest.mark.parametrize(("number", "replaced"), [(errno.EIO, True), (errno.EMFILE, False)])
def test_an_installation_id_is_replaced_only_if_the_disk_has_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, replaced: bool
) -> None:
    before, real = install_id(tmp_path), Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "install":
            raise OSError(number, "as the test says")
        return real(path)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", read)
        with nullcontext() if replaced else pytest.raises(OSError):
            install_id(tmp_path)
    assert (install_id(tmp_path) != before) == replaced
