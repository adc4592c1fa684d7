"""The scenes of probes: noise, light, stickers and small things leave a scene the same, another picture does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from processors.stages.scenes import SCENES, SIDE, Scenes, coarse_pictures

BOOT = ("lab/door", 7)
SIZES = [(32, 32), (48, 80), (480, 640)]


def scene(seed: int, size: tuple[int, int] = (48, 80)) -> Tensor:
    """Return a picture (3, H, W) of large areas of different brightness."""
    areas = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 0.9, (1, 1, SIDE, SIDE))).float()
    return torch.nn.functional.interpolate(areas, size, mode="bilinear")[0].repeat(3, 1, 1)


def numbers(pictures: list[Tensor]) -> list[int]:
    """Return the scene of each picture of one camera."""
    found = Scenes()
    return [found.numbers([BOOT], [seq], each[None])[0] for seq, each in enumerate(pictures)]


@pytest.mark.parametrize("size", SIZES)
def test_noise_light_and_a_sticker_leave_a_scene_the_same(size: tuple[int, int]) -> None:
    first, generator = scene(1, size), torch.Generator().manual_seed(0)
    noisy = (first + 0.02 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    darker, stuck = 0.6 * first, first.clone()
    stuck[:, : size[0] // 8, : size[1] // 8] = 1.0
    assert numbers([first, noisy, darker, stuck, first]) == [0] * 5


@pytest.mark.parametrize("size", SIZES)
def test_each_other_picture_is_another_scene_and_an_earlier_one_is_recognised(size: tuple[int, int]) -> None:
    several = [scene(seed, size) for seed in range(SCENES)]
    assert numbers([*several, *reversed(several)]) == [0, 1, 2, 3, 3, 2, 1, 0]


def test_a_scene_that_changes_slowly_stays_the_same() -> None:
    first, last = scene(1), scene(2)
    assert numbers([first + (last - first) * step / 40 for step in range(41)]) == [0] * 41
    assert numbers([first, last]) == [0, 1]


def test_noise_in_a_dark_picture_is_no_scene() -> None:
    generator = torch.Generator().manual_seed(0)
    dark = [(0.02 + 0.01 * torch.randn(3, 32, 32, generator=generator)).clamp(0, 1) for _ in range(5)]
    assert numbers([*dark, scene(1)]) == [0] * 5 + [5]


def test_only_the_scenes_shown_last_are_remembered() -> None:
    several = [scene(seed) for seed in range(SCENES + 1)]
    assert numbers([*several, several[1], several[0]])[-2:] == [1, SCENES + 2]


def test_boots_and_cameras_have_scenes_of_their_own_and_the_oldest_are_forgotten() -> None:
    found, picture = Scenes(remembered=2), scene(1)[None]
    boots = [BOOT, ("lab/door", 8), BOOT, ("lab/gate", 7), BOOT, ("lab/door", 8)]
    seen = [found.numbers([boot], [seq], picture)[0] for seq, boot in enumerate(boots)]
    assert seen == [0, 1, 0, 3, 0, 5]


@pytest.mark.parametrize("channels", [1, 3])
def test_coarse_pictures_have_a_mean_of_zero_and_a_spread_of_one(channels: int) -> None:
    pictures = torch.stack([scene(seed)[:channels] for seed in range(4)])
    found = coarse_pictures(pictures)
    assert found.shape == (4, channels * SIDE**2)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(1), 1, rtol=1e-4)
