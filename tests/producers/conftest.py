from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from infra.local.mosquitto import Mosquitto
from schemas.identity import CameraId
from tests.producers.fake_bridge import FakeBridge

_names = count()


@pytest.fixture(autouse=True)
def new_series_count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the time at which a camera's series begins to count."""
    monkeypatch.setattr("producers.bridge.rejections._AT_ZERO_S", 0.0)


@pytest.fixture
def broker(mosquitto: Mosquitto) -> tuple[str, int]:
    return mosquitto.host, mosquitto.port


@pytest.fixture
def camera_id() -> CameraId:
    return CameraId(f"site/cam-{next(_names)}")


@pytest.fixture
def site() -> str:
    """A site that no other test has."""
    return f"site-{next(_names)}"


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[FakeBridge]:
    with FakeBridge((mosquitto.host, mosquitto.port)) as fake:
        yield fake
