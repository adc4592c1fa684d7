"""A spool on a medium that fails: every error is a StateError, and no other frame suffers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from producers.camera import Camera
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.scenario import CameraSettings
from producers.spool import Spool, SpooledFrame, scan_spool
from schemas.errors import StateError
from schemas.frame import Encoding, encode_frame
from schemas.identity import CameraId
from schemas.keys import CameraKey, derive_camera_key

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
    broker = Broker("127.0.0.1", 1, threads=1)
    key = derive_camera_key(SECRET, CAMERA)
    settings = CameraSettings(camera_id=CAMERA)
    camera = Camera(settings, key, tmp_path, broker, LinkSettings(), Instruments.on(registry))

    def counted() -> tuple[float | None, ...]:
        what = [registry.get_sample_value("pointillist_spool_damaged_total", {"what": w}) for w in ("frame", "ledger")]
        return *what, registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"})

    assert counted() == (1, 1, 1)
    frame = camera.spool.get((boot_id, 1))
    assert frame is not None
    damage(frame)
    with pytest.raises(StateError):
        camera.spool.read(frame)
    camera.tick(0.0, 0)
    assert counted() == (2, 1, 2)
    await camera.close(0.1)
    broker.close()


async def test_frames_under_another_key_are_shed_though_one_of_them_is_damaged(tmp_path: Path) -> None:
    first = Spool(tmp_path, CAMERA)
    frames = fill(first, 5, derive_camera_key(SECRET, CAMERA))
    first.close()
    with frames[0].segment.path.open("r+b") as file:
        file.seek(frames[0].offset)
        file.write(b"?" * frames[0].length)
    again = Spool(tmp_path, CAMERA)
    assert again.frames == 4
    assert again.shed_signed_otherwise(generation=3) == 4
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
    broker = Broker("127.0.0.1", 1, threads=1)
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
    broker.close()
