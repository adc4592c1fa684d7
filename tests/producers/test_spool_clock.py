"""A spool ages by its own clock: the time of day may jump by decades."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.spool import Spool, SpoolLimits
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key

CAMERA = CameraId("lab/cam")
DAY_S = 86_400
AGE = SpoolLimits(max_age_s=DAY_S)
IN_1970_MS, IN_2026_MS = 60_000, 1_790_000_000_000


class Clock:
    """A monotonic clock that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_clock_that_is_set_forward_in_an_outage_sheds_nothing(tmp_path: Path) -> None:
    broker = Broker("127.0.0.1", 1, at_once=1)
    registry = CollectorRegistry()
    key = derive_camera_key(b"a fleet secret for the tests", CAMERA)
    settings = CameraSettings(camera_id=CAMERA, spool=AGE)
    camera = Camera(settings, key, tmp_path, broker, LinkSettings(), Instruments.on(registry))
    for seq in range(50):
        camera.spool.append(b"frame", seq, IN_1970_MS + seq, 1)
    camera.tick(0.0)
    assert camera.spool.frames == 50
    assert registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"}) == 0
    assert camera.spool.oldest_age_s() < 60
    await camera.close(0.1)


def test_a_clock_that_is_set_back_keeps_no_frame_beyond_its_age(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, AGE, clock)
    spool.append(b"frame", 0, IN_2026_MS, 1)
    clock.now_s += DAY_S - 1
    spool.append(b"frame", 1, IN_1970_MS, 1)
    spool.shed_old()
    assert spool.frames == 2
    assert spool.oldest_age_s() == DAY_S - 1
    clock.now_s += 2
    spool.shed_old()
    assert list(spool.current.shed) == [0]
    clock.now_s += DAY_S
    spool.shed_old()
    assert list(spool.current.shed) == [0, 1]
    spool.close()


def test_frames_go_on_ageing_in_the_next_process_but_not_in_between(tmp_path: Path) -> None:
    first = Clock()
    spool = Spool(tmp_path, CAMERA, AGE, first)
    spool.append(b"frame", 0, IN_2026_MS, 1)
    first.now_s += DAY_S / 2
    spool.close()

    second = Clock()
    second.now_s = 5.0  # the device has been off for weeks, and its monotonic clock begins anew
    spool = Spool(tmp_path, CAMERA, AGE, second)
    assert spool.oldest_age_s() == DAY_S / 2
    second.now_s += DAY_S / 2 + 1
    spool.shed_old()
    assert spool.frames == 0
    spool.close()


def test_a_killed_process_forgets_at_most_the_age_since_its_last_frame_or_revision(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, AGE, clock)
    spool.append(b"frame", 0, IN_2026_MS, 1)
    clock.now_s += 3600
    spool.append(b"frame", 1, IN_2026_MS, 1)
    clock.now_s += 5
    spool._lock.release()  # as kill -9 leaves it

    spool = Spool(tmp_path, CAMERA, AGE, Clock())
    assert spool.oldest_age_s() == 3600
    spool.close()
