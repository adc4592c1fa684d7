"""Sources that never return: a camera reports them and starts no second opening while one is stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from producers.camera.camera_settings import CameraSettings
from producers.sources import examine as module
from producers.sources.examine import examine
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame
from schemas.errors import SourceHungError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.producers.fleet_rig import capturing, offline_camera
from tests.waiting import PATIENCE_S, until

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)
DEVICE = SourceSettings(kind="url", address=SecretStr("/dev/video99"), open_s=0.05, hang_s=0.05)


class Device:
    """A live source; the semaphores `opens` and `gives` release its opening and each read."""

    kind = "url"
    live = True
    blocking = True
    on_demand = False

    def __init__(self) -> None:
        self.opens = threading.Semaphore(0)
        self.gives = threading.Semaphore(0)
        self.openings = 0

    def open(self, *_: object, **__: object) -> Device:
        self.openings += 1
        assert self.opens.acquire(timeout=PATIENCE_S)
        return self

    def seek(self, position: int) -> None:
        raise NotImplementedError

    def read(self) -> CapturedFrame | None:
        assert self.gives.acquire(timeout=PATIENCE_S)
        return CapturedFrame(np.zeros((32, 32, 3), np.uint8), 0, None)

    def close(self) -> None:
        pass


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device()
    monkeypatch.setattr("producers.camera.camera.open_source", made.open)
    yield made
    for each in (made.opens, made.gives):
        each.release(1000)


async def test_a_stuck_opening_is_reported_and_no_second_opening_starts(tmp_path: Path, device: Device) -> None:
    settings = CameraSettings(camera_id=CAMERA, source=DEVICE)
    registry = CollectorRegistry()

    def hung() -> float:
        return registry.get_sample_value("pointillist_source_restarts_total", {"cause": "hung"}) or 0

    async with capturing(offline_camera(settings, KEY, tmp_path, registry)) as camera:
        await until(lambda: hung() == 2, "two attempts")
        assert camera.trouble == "did not open within 1.1 s"
        assert device.openings == 1
        device.gives.release()
        device.opens.release()
        await until(lambda: camera.spool.frames, "a frame of the device after its late opening")
        assert camera.trouble == ""
        assert device.openings == 1


async def test_a_stuck_read_is_reported_and_the_source_is_reopened(tmp_path: Path, device: Device) -> None:
    device.opens.release(2)
    device.gives.release()
    settings = CameraSettings(camera_id=CAMERA, source=DEVICE)
    async with capturing(offline_camera(settings, KEY, tmp_path)) as camera:
        await until(lambda: camera.trouble, "a report")
        assert camera.trouble.startswith("no frame for 1.05 s")
        assert camera.spool.frames == 1
        await until(lambda: device.openings == 2, "another opening")
        device.gives.release(2)
        await until(lambda: camera.spool.frames > 1, "a frame of the second opening")
        assert camera.trouble == ""


async def test_a_camera_at_a_low_rate_reports_a_stuck_read_before_its_next_frame_and_keeps_its_rate(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.camera.camera._HOURS_S", 0.05)
    device.opens.release(1000)
    device.gives.release(2)
    settings = CameraSettings(camera_id=CAMERA, fps=1 / 600, source=DEVICE)
    async with capturing(offline_camera(settings, KEY, tmp_path)) as camera:
        await until(lambda: camera.trouble, "a report")
        assert camera.trouble.startswith("no frame for 1.05 s")
        await until(lambda: device.openings > 1, "another opening")

        def gives_again() -> bool:
            device.gives.release()
            return not camera.trouble

        await until(gives_again, "a picture of another opening")
        assert camera.spool.frames == 1  # the next one is due in ten minutes


@pytest.mark.parametrize("stuck", ["open", "read"])
def test_the_examination_of_a_stuck_device_times_out(monkeypatch: pytest.MonkeyPatch, stuck: str) -> None:
    released = threading.Event()

    def wait(*_: object) -> None:
        assert released.wait(PATIENCE_S)

    class Container:
        def close(self) -> None:
            pass

    if stuck == "read":
        monkeypatch.setattr(module, "open_container", lambda *_: Container())
        monkeypatch.setattr(module, "_described", lambda *_: None)
    monkeypatch.setattr(module, "open_container" if stuck == "open" else "_read", wait)
    with pytest.raises(SourceHungError, match=r"/dev/video99: did not return within 1.3 s"):
        examine(DEVICE, 0.1)
    released.set()
