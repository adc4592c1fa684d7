from __future__ import annotations

import pytest
from sqlalchemy import update

from consumers.board import load_cameras
from consumers.tables import boots
from tests.consumers.recorder_rig import Rig, verdict


def test_the_cameras_heard_last_are_restored_whenever_they_were_first_heard(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.board.MAX_CAMERAS", 2)
    heard = [("lab/a", 1, 10), ("lab/b", 1, 20), ("lab/c", 1, 30), ("lab/a", 2, 40)]
    for camera, boot, _ in heard:
        rig.verdicts([verdict(0, boot=boot)], camera)
    with rig.engine.begin() as connection:
        for camera, boot, last_ms in heard:
            of_boot = (boots.c.camera == camera, boots.c.boot == boot)
            connection.execute(update(boots).where(*of_boot).values(last_ms=last_ms))
        restored = {camera.name: camera for camera in load_cameras(connection)}
    assert set(restored) == {"lab/a", "lab/c"}
    assert restored["lab/a"].frames == 2
    assert restored["lab/a"].last is not None
    assert restored["lab/a"].last.boot == 2
