"""The limit of the pictures that are encoded as evidence."""

from __future__ import annotations

import pytest

from processors.results import evidence_limit
from processors.results.evidence_limit import (
    AHEAD_S,
    MAX_WAITING_PIXELS,
    PIXELS_PER_S,
    SMALL_PIXELS,
    EvidenceLimit,
)

LARGE = PIXELS_PER_S * 3 // 4


def encode(limit: EvidenceLimit, camera: str, pixels: int, now_s: float) -> bool:
    """Encode a picture at once if that is accepted."""
    if not limit.try_acquire(camera, pixels, now_s):
        return False
    limit.release(pixels)
    return True


def test_a_camera_has_its_rate_of_pixels_after_a_burst_and_the_others_have_theirs() -> None:
    limit = EvidenceLimit()
    assert [encode(limit, "site/a", LARGE, 10.0) for _ in range(4)] == [True, True, False, False]
    assert encode(limit, "site/b", LARGE, 10.0)
    found = sum(encode(limit, "site/a", LARGE, 10.0 + seconds / 8) for seconds in range(1, 8 * 60))
    assert found == pytest.approx(60 * PIXELS_PER_S / LARGE, abs=1 + AHEAD_S)


def test_a_fleet_of_two_small_probes_a_second_has_all_its_evidence() -> None:
    limit = EvidenceLimit()
    for step in range(600):
        assert all(encode(limit, f"site/{camera}", 640 * 480, step / 2) for camera in range(30))


def test_no_frame_joins_many_that_wait_for_their_encoding() -> None:
    limit = EvidenceLimit()
    accepted = [limit.try_acquire(f"site/{camera}", LARGE, 10.0) for camera in range(10)]
    assert accepted == [True] * (MAX_WAITING_PIXELS // LARGE + 1) + [False] * (9 - MAX_WAITING_PIXELS // LARGE)
    assert limit.try_acquire("site/small", SMALL_PIXELS, 10.0)
    assert not limit.try_acquire("site/larger", SMALL_PIXELS + 1, 10.0)
    limit.release(LARGE + SMALL_PIXELS)
    assert limit.try_acquire("site/9", LARGE, 10.0)


def test_cameras_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_limit, "MAX_CAMERAS", 3)
    limit = EvidenceLimit()
    for number in range(10):
        assert encode(limit, f"site/{number}", 1, 10.0)
    assert len(limit._paid_s) == 3
