"""Cameras whose web address gives a still picture: it is fetched again for each frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from producers.camera.camera_settings import CameraSettings
from producers.sources.examine import examine
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.errors import SourceError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.producers.fleet_rig import capturing, offline_camera
from tests.producers.web_rig import web_server
from tests.waiting import until

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)


@pytest.fixture(params=["small.png", "large.jpg"])
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the file of a dark picture. FFmpeg reads small and large ones by different formats."""
    file: Path = tmp_path / "web" / request.param
    file.parent.mkdir()
    show(file, 16)
    return file


@pytest.fixture
def settings(snapshot: Path) -> Iterator[SourceSettings]:
    """Yield a source at the web address of the picture."""
    with web_server(snapshot.parent) as address:
        yield SourceSettings(kind="url", address=SecretStr(f"{address}/{snapshot.name}"))


def show(file: Path, level: int) -> None:
    """Replace the picture by noise around this level."""
    side = 32 if file.stem == "small" else 512
    noise = np.random.default_rng(level).integers(level - 8, level + 8, (side, side, 3), dtype=np.uint8)
    made = file.parent / f"made{file.suffix}"
    Image.fromarray(noise).save(made, quality=100)
    made.replace(file)


def test_each_frame_is_fetched_when_it_is_read_and_a_failed_fetch_is_an_error(
    snapshot: Path, settings: SourceSettings
) -> None:
    source = open_source(settings)
    assert (source.live, source.on_demand) == (True, True)
    for position, level in enumerate((64, 128, 192)):
        show(snapshot, level)
        captured = source.read()
        assert captured is not None
        assert captured.position == position
        assert captured.picture.mean() == pytest.approx(level, abs=8)
    snapshot.unlink()
    with pytest.raises(SourceError, match="404"):
        source.read()
    source.close()


async def test_a_camera_sends_a_snapshot_at_its_rate_and_retries_after_a_failure(
    tmp_path: Path, snapshot: Path, settings: SourceSettings
) -> None:
    camera = offline_camera(CameraSettings(camera_id=CAMERA, fps=20, source=settings), KEY, tmp_path)
    async with capturing(camera):
        await until(lambda: camera.spool.frames >= 3, "three frames")
        snapshot.unlink()
        await until(lambda: camera.trouble, "a report")
        assert "404" in camera.trouble
        sent = camera.spool.frames
        show(snapshot, 64)
        await until(lambda: camera.spool.frames > sent, "a frame after the failure")
        assert (camera.trouble, camera.ended) == ("", False)


def test_the_examination_reports_a_snapshot_and_the_rate_of_its_fetches(settings: SourceSettings) -> None:
    found = examine(settings, 0.5)
    assert (found.live, found.snapshot, found.announced_fps, found.problem) == (True, True, None, "")
    assert found.frames > 1
    assert found.fps is not None
    assert found.fps < 11
