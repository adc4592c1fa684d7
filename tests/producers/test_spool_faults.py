"""A spool on a medium that fails: every error is a StateError, and no other frame suffers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.spool import Spool, SpooledFrame, SpoolLimits, scan_spool
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.messages.frame import Encoding, encode_frame

CAMERA = CameraId("lab/cam")
SECRET = b"a fleet secret for the tests"


def fill(spool: Spool, count: int, key: CameraKey | None = None) -> list[SpooledFrame]:
    frames = []
    for _ in range(count):
        seq, payload = spool.current.next, b"payload"
        if key is not None:
            picture = np.zeros((8, 8, 1), np.uint8)
            payload = encode_frame(key, spool.current.boot_id, seq, 1000, picture, Encoding())
        spool.append(payload, seq, 1000, 1)
        frame = spool.get((spool.current.boot_id, seq))
        assert frame is not None
        frames.append(frame)
    return frames


def refuse(problem: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(problem, os.strerror(problem))

    return fail


def test_a_frame_that_cannot_be_read_for_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA)
    [frame] = fill(spool, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse(errno.EMFILE))
        with pytest.raises(StateError, match="Too many open files"):
            spool.read(frame)
    assert spool.read(frame) == b"payload"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", refuse(errno.EIO))
        with pytest.raises(StateError):
            spool.read(frame)
    assert spool.frames == 1
    spool.close()


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_frames_whose_file_does_not_hold_them_any_more_are_shed_and_counted(tmp_path: Path, how: str) -> None:
    spool = Spool(tmp_path, CAMERA)
    frames = fill(spool, 3)
    if how == "removed":
        frames[0].segment.path.unlink()
    else:
        os.truncate(frames[0].segment.path, 10)
    shed: list[tuple[int, int]] = []
    spool.on_shed = shed.extend
    for frame in frames[:1] if how == "removed" else frames:
        with pytest.raises(StateError):
            spool.read(frame)
    assert [seq for _, seq in shed] == [0, 1, 2]
    assert spool.peek_unsent() is None
    fill(spool, 1)
    spool.close()
    [boot] = scan_spool(tmp_path)
    assert (list(boot.shed), list(boot.waiting)) == ([0, 1, 2], [3])


def test_a_file_that_is_gone_costs_the_frames_of_no_other_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**12))
    frames = fill(spool, 60)
    boot_id = spool.current.boot_id
    spool.close()
    assert frames[0].segment is not frames[-1].segment
    again = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**12))
    frames[-1].segment.path.unlink()
    last = again.get((boot_id, 59))
    assert last is not None
    with pytest.raises(StateError, match="is gone"):
        again.read(last)
    first = last.segment.first
    assert [seq for seq in range(60) if again.get((boot_id, seq))] == list(range(first))
    assert again.ledgers.outdated() == []  # the ledger that says so is written
    assert list(again.ledgers.of(boot_id).shed) == list(range(first, 60))
    again.close()


def test_a_file_that_was_removed_is_held_open_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 2)
    boot_id = first.current.boot_id
    first.close()
    spool = Spool(tmp_path, CAMERA)
    opened: list[int] = []
    real = os.open

    def noted(path: str | Path, flags: int, mode: int = 0o777) -> int:
        opened.append(real(path, flags, mode))
        return opened[-1]

    frame = spool.get((boot_id, 0))
    assert frame is not None
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


@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_frame_that_a_failing_medium_did_not_take_leaves_no_file_behind_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_fails: bool
) -> None:
    spool = Spool(tmp_path, CAMERA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", refuse(errno.EIO))
        if cut_fails:
            patch.setattr(os, "ftruncate", refuse(errno.EIO))
        with pytest.raises(StateError, match="Input/output error"):
            fill(spool, 1)
    assert (spool.frames, spool.current.next) == (0, 0)
    assert len(list(tmp_path.glob("*.segment"))) == (not cut_fails)
    fill(spool, 2)
    boot_id = spool.current.boot_id
    spool.close()
    again = Spool(tmp_path, CAMERA)
    assert (again.frames, again.take_damage()) == (2, (0, 0))
    assert again.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.segment"))
    assert [again.read(frame) for seq in range(2) if (frame := again.get((boot_id, seq)))] == [b"payload"] * 2
    again.close()


def test_a_full_disk_sheds_the_older_of_two_files_and_is_an_error_when_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**12))
    while len(list(tmp_path.glob("*.segment"))) < 2:
        fill(spool, 1)
    boot_id, second = spool.current.boot_id, spool.current.next - 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", refuse(errno.ENOSPC))
        with pytest.raises(StateError, match="No space left"):
            fill(spool, 1)
    assert [seq for seq in range(second + 1) if spool.get((boot_id, seq))] == [second]
    assert list(spool.current.shed) == list(range(second))
    fill(spool, 1)
    spool.close()


def test_an_empty_file_is_signed_by_nobody(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 1, derive_camera_key(SECRET, CAMERA))
    spool.confirm(spool.current.boot_id, [(0, 0)])
    assert len(list(tmp_path.glob("*.segment"))) == 1
    assert spool.shed_signed_otherwise(derive_camera_key(SECRET, CAMERA, 3)) == 0
    spool.close()


def test_a_file_that_cannot_be_removed_takes_no_confirmation_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 2)
    boot_id = first.current.boot_id
    first.close()
    spool = Spool(tmp_path, CAMERA)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse(errno.EIO))
        assert len(spool.confirm(boot_id, [(0, 1)])) == 2
    assert spool.frames == 0
    spool.close()


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.spool.spool.recover", refuse(errno.EIO))
    with pytest.raises(StateError, match="Input/output error"):
        Spool(tmp_path, CAMERA)
    monkeypatch.undo()
    Spool(tmp_path, CAMERA).close()  # the lock was given back


async def test_damaged_frames_and_ledgers_are_counted_whenever_they_are_found(tmp_path: Path) -> None:
    def damage(frame: SpooledFrame) -> None:
        with frame.segment.path.open("r+b") as file:
            file.seek(frame.offset)
            file.write(b"?")

    first = Spool(tmp_path, CAMERA)
    damage(fill(first, 4, derive_camera_key(SECRET, CAMERA))[2])
    boot_id = first.current.boot_id
    first.close()
    for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
        copy.write_text("{}")
    registry = CollectorRegistry()
    broker = Broker("127.0.0.1", 1, at_once=1)
    key = derive_camera_key(SECRET, CAMERA)
    settings = CameraSettings(camera_id=CAMERA)
    camera = Camera(settings, key, tmp_path, broker, LinkSettings(), Instruments.on(registry))

    def counted() -> tuple[float | None, ...]:
        what = [registry.get_sample_value("pointillist_spool_damaged_total", {"kind": w}) for w in ("frame", "ledger")]
        return *what, registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"})

    assert counted() == (1, 1, 1)
    frame = camera.spool.get((boot_id, 1))
    assert frame is not None
    damage(frame)
    with pytest.raises(StateError):
        camera.spool.read(frame)
    camera.tick(0.0)
    assert counted() == (2, 1, 2)
    await camera.close(0.1)


async def test_frames_under_another_key_are_shed_though_one_of_them_is_damaged(tmp_path: Path) -> None:
    first = Spool(tmp_path, CAMERA)
    frames = fill(first, 5, derive_camera_key(SECRET, CAMERA))
    first.close()
    with frames[0].segment.path.open("r+b") as file:
        file.seek(frames[0].offset)
        file.write(b"?" * frames[0].length)
    again = Spool(tmp_path, CAMERA)
    assert again.frames == 4
    assert again.shed_signed_otherwise(derive_camera_key(SECRET, CAMERA, 3)) == 4
    again.close()


@pytest.mark.parametrize(("generation", "expected"), [(0, 0), (3, 5)])
async def test_frames_under_another_key_generation_are_shed_at_the_start(
    tmp_path: Path, generation: int, expected: int
) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 5, derive_camera_key(SECRET, CAMERA))
    boot_id = first.current.boot_id
    first.close()
    registry = CollectorRegistry()
    broker = Broker("127.0.0.1", 1, at_once=1)
    camera = Camera(
        CameraSettings(camera_id=CAMERA),
        derive_camera_key(SECRET, CAMERA, generation),
        tmp_path,
        broker,
        LinkSettings(),
        Instruments.on(registry),
    )
    assert camera.spool.frames == 5 - expected
    assert registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"}) == expected
    old = next(boot for boot in scan_spool(tmp_path) if boot.boot_id == boot_id)
    assert len(old.shed) == expected
    assert camera.publisher.has_room
    await camera.close(0.1)
