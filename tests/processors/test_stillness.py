"""The change of pixels that were sent twice: zero for a repeated picture under any masks, positive with noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from processors.stages.packed import PackedFrames
from processors.stages.stillness import Stillness, change_between, samples
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.pixels.masks import kept_mask

KEY = derive_camera_key(b"a secret for tests of stillness", CameraId("lab/door"))
SIZES = [(32, 32), (24, 40), (144, 256)]


def sent_mask(seq: int, size: tuple[int, int], ratio: float) -> torch.Tensor:
    return torch.from_numpy(kept_mask(KEY, 1, seq, *size, dropped_per_block(ratio)))[None, None]


def picture(seed: int, size: tuple[int, int], noise: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(1)
    pixels = rng.integers(20, 230, (1, 3, *size))
    pixels = pixels + np.random.default_rng(seed).integers(-noise, noise + 1, pixels.shape)
    return torch.from_numpy(pixels.clip(0, 255)).float() / 255


def measured_changes(pictures: list[torch.Tensor], ratio: float) -> list[float]:
    seconds = iter(range(10_000))
    stillness, found = Stillness(clock_s=lambda: 2.0 * next(seconds)), []
    for seq, each in enumerate(pictures):
        sent = sent_mask(seq, tuple(each.shape[2:]), ratio)  # type: ignore[arg-type]  # two sides
        found += list(stillness.changes(["lab/door"], each * sent, sent).values())
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])
def test_a_repeated_picture_under_changing_masks_has_no_change(size: tuple[int, int], ratio: float) -> None:
    assert measured_changes([picture(0, size)] * 30, ratio) == [0.0] * 29


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_a_still_scene_with_sensor_noise_always_changes(size: tuple[int, int], ratio: float) -> None:
    found = measured_changes([picture(n, size, noise=1) for n in range(30)], ratio)
    assert len(found) == 29
    assert min(found) > 0.3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.75])
def test_packed_frames_give_the_samples_of_placed_frames(size: tuple[int, int], ratio: float) -> None:
    sent = torch.cat([sent_mask(seq, size, ratio) for seq in (1, 2)])
    frames = torch.cat([picture(1, size, 9), picture(2, size, 9)]) * sent
    pixels = frames.permute(0, 2, 3, 1)[sent[:, 0]].mul(255).round().byte()
    placed, packed = samples(frames, sent), samples(PackedFrames(pixels, sent, sent), sent)
    for one, other in zip(placed, packed, strict=True):
        assert one.shape == other.shape
        assert np.array_equal(one.sent, other.sent)
        assert np.array_equal(one.values, other.values)


def test_frames_of_different_sizes_are_not_compared() -> None:
    (small,) = samples(picture(0, (32, 32)), sent_mask(0, (32, 32), 0.0))
    (large,) = samples(picture(0, (24, 40)), sent_mask(0, (24, 40), 0.0))
    assert change_between(small, large) is None


def test_a_camera_is_compared_at_most_once_a_second() -> None:
    now_s = [0.0]
    stillness = Stillness(clock_s=lambda: now_s[0])
    frame, sent = picture(0, (32, 32)), sent_mask(0, (32, 32), 0.0)
    found = []
    for _ in range(9):
        found.append(bool(stillness.changes(["lab/door"], frame, sent)))
        now_s[0] += 0.5
    assert found == [False, False, True, False, True, False, True, False, True]


def test_the_least_recently_compared_cameras_are_removed() -> None:
    seconds = iter(range(10_000))
    stillness = Stillness(remembered=2, clock_s=lambda: 2.0 * next(seconds))
    frame, sent = picture(0, (32, 32)), sent_mask(0, (32, 32), 0.0)
    for camera in ("a", "b", "c"):
        stillness.changes([camera], frame, sent)
    assert not stillness.changes(["a"], frame, sent)
    assert stillness.changes(["c"], frame, sent)
