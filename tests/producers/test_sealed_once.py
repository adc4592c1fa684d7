"""Seals of a boot and sequence number: whatever fails between two attempts, the content never changes."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.camera.camera_settings import CameraSettings
from producers.camera.sealing import FrameSealer
from producers.sources.reader import TimedFrame, read_from
from producers.sources.source import CapturedFrame
from producers.spool import Spool, writing
from producers.spool.segment import write_record
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, open_frame
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, RAW
from tests.producers.fleet_rig import offline_camera

KEYS = KeyRing(b"a fleet secret for the tests")
CAMERA = CameraId("hall/door")
KEY = KEYS.current(CAMERA)
WRITE_RECORD = write_record


def picture(number: int) -> Picture:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)


class Medium:
    """A replacement for the disk that records every payload for a sequence number and fails on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: defaultdict[tuple[int, int], set[bytes]] = defaultdict(set)
        self.failure = ""
        monkeypatch.setattr(writing, "write_record", self.write_record)

    def write_record(
        self, fd: int, boot_id: int, seq: int, position: int, captured_ms: int, now_ms: int, raw: int, payload: bytes
    ) -> int:
        self.written[boot_id, seq].add(payload)
        if self.failure == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.failure == "part":
            os.write(fd, payload[: len(payload) // 2])
            return len(payload) // 2
        return WRITE_RECORD(fd, boot_id, seq, position, captured_ms, now_ms, raw, payload)


class Device:
    """A camera's spool and its sealing; `restart` replaces the process after a crash."""

    def __init__(self, folder: Path, medium: Medium) -> None:
        self._folder = folder
        self._medium = medium
        self.spool = Spool(folder, CAMERA)
        self.sealing = self._sealing()
        self.captured = 0

    def _sealing(self) -> FrameSealer:
        return FrameSealer(KEY, self.spool, self._append, GroupEncoder(KEY, VideoSettings()))

    def _append(self, payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> None:
        self.spool.append(payload, position, captured_ms, raw_bytes)
        if self._medium.failure == "after":
            raise RuntimeError("a defect after the append")

    def publish(self, encoding: Encoding) -> None:
        """Publish a picture as a camera does: pending frames first, and an error drops this picture."""
        self.captured += 1
        try:
            self.sealing.append()
            self.sealing.seal(picture(self.captured), self.captured, self.captured, encoding)
            self.sealing.append()
        except (StateError, RuntimeError):
            pass

    def restart(self) -> None:
        for (boot_id, seq), payloads in self._stored().items():
            self._medium.written[boot_id, seq].add(payloads)
        self.spool.close()
        self.spool = Spool(self._folder, CAMERA)
        self.sealing = self._sealing()
        for (boot_id, seq), payloads in self._stored().items():
            self._medium.written[boot_id, seq].add(payloads)

    def _stored(self) -> dict[tuple[int, int], bytes]:
        stored = {}
        for boot_id, seq in list(self._medium.written):
            frame = self.spool.get((boot_id, seq))
            if frame is not None:
                stored[boot_id, seq] = self.spool.read(frame)
        return stored

    def close(self) -> None:
        self.spool.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["", "", "error", "part", "after", "crash"]),
        st.sampled_from(
            [Encoding(16), Encoding(40), Encoding(0, 1.0), Encoding(16, 0, LOSSLESS), Encoding(8, 0.5, RAW)]
        ),
    ),
    min_size=2,
    max_size=8,
)


@settings(deadline=None, max_examples=25)
@given(STEPS)
def test_a_sequence_number_never_has_two_contents(steps: list[tuple[str, Encoding]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
        medium = Medium(monkeypatch)
        device = Device(Path(folder), medium)
        try:
            for failure, encoding in steps:
                medium.failure = failure
                if failure == "crash":
                    medium.failure = ""
                    device.restart()
                device.publish(encoding)
            medium.failure = ""
            device.publish(Encoding())
        finally:
            medium.failure = ""
            device.close()
    assert medium.written
    assert {place: len(payloads) for place, payloads in medium.written.items() if len(payloads) > 1} == {}
    for payloads in medium.written.values():
        for payload in payloads:
            open_frame(CAMERA, payload, KEYS)


def test_no_frame_is_sealed_while_another_waits_for_its_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = Medium(monkeypatch)
    device = Device(tmp_path, medium)
    medium.failure = "error"
    device.publish(Encoding())
    with pytest.raises(RuntimeError, match="frame 0 is sealed"):
        device.sealing.seal(picture(2), 2, 2, Encoding())
    medium.failure = ""
    device.publish(Encoding(40))
    assert not device.sealing.waits
    assert (device.spool.frames, device.spool.current.next) == (2, 2)
    assert len(medium.written[device.spool.current.boot_id, 0]) == 1
    device.close()


def test_a_frame_is_written_once_if_an_error_follows_its_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path, Medium(monkeypatch))

    def append(payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> None:
        device.spool.append(payload, position, captured_ms, raw_bytes)
        raise StateError("the connection")

    device.sealing = FrameSealer(KEY, device.spool, append, GroupEncoder(KEY, VideoSettings()))
    device.sealing.seal(picture(1), 1, 1, Encoding())
    with pytest.raises(StateError):
        device.sealing.append()
    device.sealing.append()
    assert (device.spool.frames, device.sealing.waits) == (1, False)
    device.close()


async def test_a_camera_stopped_while_its_spool_is_full_seals_no_other_picture_with_that_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium = Medium(monkeypatch)
    camera = offline_camera(CameraSettings(camera_id=CAMERA), KEY, tmp_path)
    await camera.open_source()
    source = camera._source
    assert source is not None
    reader = read_from(source)
    medium.failure = "part"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await camera._publish(reader, TimedFrame(CapturedFrame(picture(1), 1, None), 1))
    camera._control.encoding = Encoding(40)
    medium.failure = ""
    await camera._publish(reader, TimedFrame(CapturedFrame(picture(2), 2, None), 2))
    reader.close()
    await camera.close(0.1)
    boot_id = camera.spool.current.boot_id
    assert {place: len(payloads) for place, payloads in medium.written.items()} == {(boot_id, 0): 1, (boot_id, 1): 1}
