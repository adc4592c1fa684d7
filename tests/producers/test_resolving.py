from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import SecretStr

from producers.camera.camera_settings import CameraSettings
from producers.sources.examine import examine
from producers.sources.settings import SourceSettings
from producers.sources.trial import try_source
from schemas.errors import SourceError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.producers.fleet_rig import offline_camera

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)
UPRIGHT = 32, 48
"""Width and height of the clip as players show it: white above, black below."""


@pytest.fixture(scope="module", params=[90, 180, 270, "mirrored"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose pictures are stored turned, with the display matrix that turns them back."""
    file = tmp_path_factory.mktemp("clip") / "telephone.mp4"
    shown = np.zeros((UPRIGHT[1], UPRIGHT[0], 3), np.uint8)
    shown[: UPRIGHT[1] // 2] = 255
    is_mirrored = request.param == "mirrored"
    degrees = 0 if is_mirrored else request.param
    stored = np.ascontiguousarray(np.rot90(shown, degrees // 90))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(-degrees, hflip=is_mirrored)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    return file


@pytest.mark.parametrize("planar", [False, True])
async def test_a_camera_sends_a_telephones_clip_as_players_show_it(clip: Path, tmp_path: Path, planar: bool) -> None:
    profile = "video" if planar else "raw"
    source = SourceSettings(kind="video", file=clip, privacy=() if planar else ((0, 0.5, 1, 0.25),))
    settings = CameraSettings(camera_id=CAMERA, source=source, profile=profile)  # type: ignore[arg-type]  # a literal
    camera = offline_camera(settings, KEY, tmp_path)
    opened = camera._positioned()
    captured = opened.read()
    opened.close()
    await camera.close(0)
    assert captured is not None
    assert captured.picture.shape[:2] == UPRIGHT[::-1]
    assert captured.picture[:20].min() > 200
    assert captured.picture[28:].max() < 50


def test_a_region_and_the_settings_rotation_are_of_the_turned_picture(clip: Path) -> None:
    try_source(SourceSettings(kind="video", file=clip, region=(0, 40, 32, 8)))
    with pytest.raises(SourceError, match="region inside 32x48"):
        try_source(SourceSettings(kind="video", file=clip, region=(40, 0, 8, 32)))
    address = SecretStr(f"file://{clip}")
    assert examine(SourceSettings(kind="url", address=address), 0.1).sent_size == UPRIGHT
    assert examine(SourceSettings(kind="url", address=address, rotate=90), 0.1).sent_size == UPRIGHT[::-1]


def test_a_link_to_a_device_opens_as_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, object]] = []

    def record(address: str, **options: object) -> None:
        opened.append((address, options["format"]))
        raise OSError

    monkeypatch.setattr("producers.sources.url.av.open", record)
    monkeypatch.setattr("producers.sources.resolving._DEVICES", f"{tmp_path}/")
    link = tmp_path / "usb-camera"
    link.symlink_to("/dev/video99")
    with pytest.raises(SourceError):
        try_source(SourceSettings(kind="url", address=SecretStr(str(link))))
    assert opened == [("/dev/video99", "v4l2")]
