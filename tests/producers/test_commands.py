from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from producers.publisher.commands import CameraControl
from schemas.frame import Encoding, sign_message
from schemas.identity import CameraId
from schemas.keys import derive_camera_key
from schemas.pointillist_pb2 import Command

KEY = derive_camera_key(b"a fleet secret for the tests", CameraId("lab/cam"))


def test_a_command_that_cannot_be_kept_is_obeyed_and_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    control = CameraControl(tmp_path, KEY, Encoding())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        assert control.command(sign_message(KEY, Command(issued_ms=1, dropped_per_block=32, enabled=False)))
        assert control.persist() == "No space left on device"
    assert (control.encoding.dropped_per_block, control.enabled) == (32, False)
    assert CameraControl(tmp_path, KEY, Encoding()).enabled

    assert control.persist() is None

    again = CameraControl(tmp_path, KEY, Encoding())
    assert (again.encoding.dropped_per_block, again.enabled) == (32, False)
