"""Fixtures for tests of cameras and bridges: broker addresses, unused names, and a bridge without Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from infra.local.mosquitto import Mosquitto
from schemas.identity import CameraId
from tests.producers.fake_bridge import FakeBridge

_names = count()


@pytest.fixture
def broker(mosquitto: Mosquitto) -> tuple[str, int]:
    return mosquitto.host, mosquitto.port


@pytest.fixture
def camera_id() -> CameraId:
    return CameraId(f"site/cam-{next(_names)}")


@pytest.fixture
def site() -> str:
    """Return a site that no other test has."""
    return f"site-{next(_names)}"


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[FakeBridge]:
    with FakeBridge((mosquitto.host, mosquitto.port)) as fake:
        yield fake
