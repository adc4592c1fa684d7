from __future__ import annotations

import pytest

from infra.local.mosquitto import Mosquitto
from schemas.identity import CameraId

_names = (f"site/cam-{number}" for number in range(1000))


@pytest.fixture
def broker(mosquitto: Mosquitto) -> tuple[str, int]:
    return mosquitto.host, mosquitto.port


@pytest.fixture
def camera_id() -> CameraId:
    return CameraId(next(_names))
