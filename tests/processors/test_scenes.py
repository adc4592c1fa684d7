"""The scenes of probes: noise, light, stickers and small things leave a scene the same, another picture does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from processors.stages.scenes import SCENES, SIDE, Coarse, SceneMemory, coarse_pictures

BOOT = ("lab/door", 7)
SIZES = [(32, 32), (48, 80), (480, 640), (432, 768)]


def scene(seed: int, size: tuple[int, int] = (48, 80), contrast: float = 0.8) -> Tensor:
    """Return a picture (3, H, W) of large areas, whose brightness covers a range of `contrast`."""
    areas = torch.from_numpy(np.random.default_rng(seed).uniform(-0.5, 0.5, (1, 1, SIDE, SIDE))).float()
    return torch.nn.functional.interpolate(0.5 + contrast * areas, size, mode="bilinear")[0].repeat(3, 1, 1)


def coarse(picture: Tensor) -> Coarse:
    found: Coarse = coarse_pictures(picture[None])[0]
    return found


def numbers(pictures: list[Tensor]) -> list[int]:
    """Return the scene of each picture of one camera."""
    found = SceneMemory()
    return [found.number(BOOT, seq, coarse(each)) for seq, each in enumerate(pictures)]


@pytest.mark.parametrize("size", SIZES)
def test_noise_light_and_a_sticker_leave_a_scene_the_same(size: tuple[int, int]) -> None:
    first, generator = scene(1, size), torch.Generator().manual_seed(0)
    noisy = (first + 0.02 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    darker, brighter = 0.7 * first, (first + 0.1).clamp(0, 1)
    assert numbers([first, noisy, darker, first, brighter, first]) == [0] * 6


@pytest.mark.parametrize("contrast", [0.8, 0.3, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_a_sticker_of_a_fiftieth_leaves_a_scene_the_same_at_any_contrast(
    size: tuple[int, int], contrast: float
) -> None:
    chance, side = np.random.default_rng(0), round((0.02 * size[0] * size[1]) ** 0.5)
    for seed in range(20):
        first = scene(seed, size, contrast)
        top, left = (int(chance.integers(0, each - side)) for each in size)
        stuck = first.clone()
        stuck[:, top : top + side, left : left + side] = float(seed % 2)
        assert numbers([first, stuck, stuck, first]) == [0] * 4


@pytest.mark.parametrize("size", SIZES)
def test_each_other_picture_is_another_scene_and_an_earlier_one_is_recognised(size: tuple[int, int]) -> None:
    several = [scene(seed, size) for seed in range(SCENES)]
    assert numbers([*several, *reversed(several)]) == [*range(SCENES), *reversed(range(SCENES))]


def test_a_scene_that_changes_slowly_stays_the_same() -> None:
    first, last = scene(1), scene(2)
    assert numbers([first + (last - first) * step / 40 for step in range(41)]) == [0] * 41
    assert numbers([first, last]) == [0, 1]


def test_noise_in_a_dark_picture_is_no_scene() -> None:
    generator = torch.Generator().manual_seed(0)
    dark = [(0.02 + 0.01 * torch.randn(3, 32, 32, generator=generator)).clamp(0, 1) for _ in range(5)]
    assert numbers([*dark, scene(1)]) == [0] * 5 + [5]


def test_scenes_shown_for_a_moment_make_room_for_others_and_a_view_stays() -> None:
    view, moments = scene(0), [scene(seed) for seed in range(1, 60)]
    assert numbers([*[view] * 10, *moments, view])[-1] == 0
    # Of the moments, the last ones are remembered.
    assert numbers([*[view] * 10, *moments, *moments[-SCENES + 1 :]])[1 - SCENES :] == [*range(70 - SCENES, 69)]


@pytest.mark.parametrize("covers", [5, 6])
def test_a_view_is_forgotten_after_twelve_others_of_which_six_stay(covers: int) -> None:
    others = [each for seed in range(1, 13) for each in [scene(seed)] * (8 if seed <= covers else 1)]
    view = [scene(0)] * 10
    found = numbers([*view, *others, scene(0)])
    assert (found[-1] == 0) == (covers < 6)


def test_a_view_that_does_not_come_again_makes_room_for_others() -> None:
    tour = [each for seed in range(1, SCENES + 1) for each in [scene(seed)] * 10] * 6
    found = numbers([*[scene(0)] * 500, *tour])
    # In the end, all views of the tour are known.
    assert len(set(found[-10 * SCENES :])) == SCENES
    assert set(found[-10 * SCENES :]) == set(found[-20 * SCENES : -10 * SCENES])


def test_of_scenes_shown_equally_often_those_shown_last_are_remembered() -> None:
    several = [scene(seed) for seed in range(SCENES + 1)]
    assert numbers([*several, several[1], several[0]])[-2:] == [1, SCENES + 2]
    # The first one was shown again, so that the second is forgotten.
    assert numbers([*several[:-1], several[0], several[-1], several[0], several[1]])[-2:] == [0, SCENES + 3]


def test_boots_and_cameras_have_scenes_of_their_own_and_the_oldest_are_forgotten() -> None:
    found, blocks = SceneMemory(remembered=2), coarse(scene(1))
    boots = [BOOT, ("lab/door", 8), BOOT, ("lab/gate", 7), BOOT, ("lab/door", 8)]
    assert [found.number(boot, seq, blocks) for seq, boot in enumerate(boots)] == [0, 1, 0, 3, 0, 5]


def test_frames_of_another_form_or_without_numbers_are_new_scenes() -> None:
    found, blocks = SceneMemory(), coarse(scene(1))
    unknown = np.full_like(blocks, np.nan)
    shown = [blocks, blocks[:1], unknown, unknown, blocks, blocks[:1]]
    assert [found.number(BOOT, seq, each) for seq, each in enumerate(shown)] == [0, 1, 2, 3, 0, 1]


def test_a_remembered_scene_keeps_no_batch_alive() -> None:
    found = SceneMemory()
    for seq, blocks in enumerate(coarse_pictures(torch.stack([scene(seed) for seed in range(3)]))):
        found.number(BOOT, seq, blocks)
    assert all(each.coarse.base is None for each in found._known[BOOT].values())


@pytest.mark.parametrize("channels", [1, 3])
def test_coarse_pictures_are_the_means_of_blocks(channels: int) -> None:
    frames = torch.rand(2, channels, 2 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(0))
    found = coarse_pictures(frames)
    expected = frames.reshape(2, channels, SIDE, 2, SIDE, 4).mean((3, 5)).flatten(2)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
