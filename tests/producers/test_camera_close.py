"""The end of a camera: one part that fails to close keeps no other part open."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from producers.camera.camera_settings import CameraSettings
from producers.spool import Spool
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.producers.fleet_rig import offline_camera

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)


@pytest.mark.parametrize("failing", ["source", "publisher", "sealing"])
async def test_a_part_that_fails_to_close_leaves_nothing_else_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    camera = offline_camera(CameraSettings(camera_id=CAMERA), KEY, tmp_path, CollectorRegistry())
    await camera.open_source()
    parts = {"source": camera._source, "publisher": camera.publisher, "sealing": camera._sealing}
    closed = []

    def closing(name: str) -> None:
        closed.append(name)
        if name == failing:
            raise RuntimeError(f"the {name} does not close")

    async def closing_later(name: str) -> None:
        closing(name)

    for name, part in parts.items():
        later = name == "publisher"
        monkeypatch.setattr(part, "close", lambda *_, n=name, late=later: (closing_later if late else closing)(n))
    with pytest.raises(RuntimeError, match=f"the {failing} does not close"):
        await camera.close(0.1)
    assert closed == ["source", "publisher", "sealing"]
    Spool(tmp_path, CAMERA).close()  # its lock is free
