"""The display matrix of a clip: cameras send the picture that players show."""

from __future__ import annotations

from collections.abc import Iterator
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
from tests.producers.web_rig import web_server

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)
UPRIGHT = 32, 48
"""Width and height of the clip as players show it: white above, darker on the right, and black below."""


@pytest.fixture(
    scope="module",
    params=[(90, False), (180, False), (270, False), (0, True), (90, True), (180, True)],
    ids=lambda param: f"{param[0]}{'-mirrored' * param[1]}",
)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a clip whose pictures are stored turned or mirrored, with the display matrix that reverts this."""
    file = tmp_path_factory.mktemp("clip") / "telephone.mp4"
    upright = np.zeros((UPRIGHT[1], UPRIGHT[0], 3), np.uint8)
    upright[: UPRIGHT[1] // 2] = 255
    upright[: UPRIGHT[1] // 2, UPRIGHT[0] // 2 :] = 220
    degrees, is_mirrored = request.param
    stored = np.ascontiguousarray(np.rot90(upright[:, ::-1] if is_mirrored else upright, degrees // 90))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(-degrees, hflip=is_mirrored)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    return file


@pytest.fixture(scope="module")
def web(clip: Path) -> Iterator[str]:
    """Yield the address of the clip on a web server."""
    with web_server(clip.parent) as address:
        yield f"{address}/{clip.name}"


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("over_http", [False, True])
async def test_a_camera_sends_a_telephones_clip_as_players_show_it(
    clip: Path, web: str, tmp_path: Path, planar: bool, over_http: bool
) -> None:
    profile = "video" if planar else "raw"
    location = {"kind": "url", "address": web} if over_http else {"kind": "video", "file": clip}
    source = SourceSettings.model_validate({**location, "privacy": () if planar else ((0.5, 0, 0.5, 0.25),)})
    settings = CameraSettings(camera_id=CAMERA, source=source, profile=profile)  # type: ignore[arg-type]  # a literal
    camera = offline_camera(settings, KEY, tmp_path)
    opened = camera._positioned()
    read = []
    while (captured := opened.read()) is not None:
        read.append(captured)
    opened.close()
    await camera.close(0)
    assert [captured.position for captured in read] == [0, 1, 2]
    for captured in read:
        assert captured.picture.shape[:2] == UPRIGHT[::-1]
        assert captured.picture[:20, :12].min() > 240 > captured.picture[14:20, 20:].max()
        assert captured.picture[14:20].min() > 200
        assert planar or captured.picture[:10, 18:].max() < 50
        assert captured.picture[28:].max() < 50


def test_regions_and_the_rotate_setting_apply_to_the_upright_picture(clip: Path, web: str) -> None:
    for place in ({"kind": "video", "file": clip}, {"kind": "url", "address": web}):
        try_source(SourceSettings.model_validate({**place, "region": (0, 40, 32, 8)}))
        with pytest.raises(SourceError, match="region inside 32x48"):
            try_source(SourceSettings.model_validate({**place, "region": (40, 0, 8, 32)}))
    for address in (SecretStr(f"file://{clip}"), SecretStr(web)):
        assert examine(SourceSettings(kind="url", address=address), 0.1).sent_size == UPRIGHT
        assert examine(SourceSettings(kind="url", address=address, rotate=90), 0.1).sent_size == UPRIGHT[::-1]
