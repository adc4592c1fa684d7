from __future__ import annotations

import numpy as np
import pytest

from lab.experiments.super_iot.static_scene import FRAMES, Looked, _views
from schemas.identity import CameraId
from schemas.keys import derive_camera_key


@pytest.fixture
def views() -> dict[tuple[str, int], Looked]:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return dict(_views([picture] * max(FRAMES), derive_camera_key(b"a secret of tests", CameraId("test/static"))))


def test_what_stands_still_shows_one_mask_however_long_it_is_looked_at(views: dict[tuple[str, int], Looked]) -> None:
    first_pixels, first_kept = views["temporal", 1]
    for number in FRAMES:
        pixels, kept = views["temporal", number]
        np.testing.assert_array_equal(kept, first_kept)
        np.testing.assert_array_equal(pixels, first_pixels)
        assert kept.mean() == 0.75


def test_frames_alone_have_masks_of_their_own_and_fused_ones_give_the_picture_away(
    views: dict[tuple[str, int], Looked],
) -> None:
    assert views["each frame alone", 2][1].mean() == 0.75
    assert (views["each frame alone", 2][1] != views["each frame alone", 16][1]).any()
    assert views["fused, never done", 2][1].mean() > 0.9
    assert views["fused, never done", 16][1].all()
