"""The thin plate that fills dropped pixels, compared with its definition in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from lab.masks import random_masks
from processors.stages import plate as stage
from processors.stages.drop import drop
from processors.stages.plate import PLATE_LOWEST, PLATE_STEPS, SIGMA, _filled, reconstruct_plate
from tests.processors.kernel_rig import random_case


def test_normalised_convolution_is_the_weighted_mean_of_the_kept_neighbours(device: torch.device) -> None:
    frames, kept = random_case((2, 3, 17, 12), 0.2, dtype=torch.float64)
    found = reconstruct_plate(frames.to(device), kept.to(device), sigma=0.7, steps=0).cpu().numpy()
    x = np.arange(-1, 2)
    kernel = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 0.7**2))
    for b in range(2):
        weight = kept[b, 0].numpy().astype(float)
        norm = convolve(weight, kernel, mode="constant")
        for c in range(3):
            picture = frames[b, c].numpy()
            # Pixels without a kept neighbour are filled in another way, which has its own test.
            mean = convolve(picture * weight, kernel, mode="constant") / np.where(norm > 0, norm, np.nan)
            expected = np.where(weight > 0, picture, mean)
            np.testing.assert_allclose(found[b, c][norm > 0], expected[norm > 0], atol=1e-12)


def test_repeated_steps_reach_the_thin_plate_through_the_kept_pixels(device: torch.device) -> None:
    frames, kept = random_case((1, 1, 9, 11), 0.3, dtype=torch.float64)
    filled, free_weight = frames.to(device), (~kept).double().to(device)
    for _ in range(60):
        filled = stage._towards_thin_plate(filled, free_weight, 8, 0.5)
    found = filled[0, 0].cpu().numpy()
    size = 9 * 11
    laplacian = np.zeros((size, size))
    for i in range(9):
        for j in range(11):
            for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if 0 <= i + di < 9 and 0 <= j + dj < 11:
                    laplacian[i * 11 + j, (i + di) * 11 + j + dj] += 1
                    laplacian[i * 11 + j, i * 11 + j] -= 1
    energy = laplacian @ laplacian
    free = ~kept[0, 0].numpy().ravel()
    expected = frames[0, 0].numpy().ravel().copy()
    expected[free] = np.linalg.solve(energy[np.ix_(free, free)], -energy[np.ix_(free, ~free)] @ expected[~free])
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)


def test_a_plane_with_isolated_dropped_pixels_is_restored(device: torch.device) -> None:
    rows, columns = torch.arange(16.0)[:, None], torch.arange(24.0)
    plane = (0.1 + rows / 40 + columns / 60)[None, None].to(device)
    kept = torch.ones(1, 1, 16, 24, dtype=torch.bool, device=device)
    kept[..., 3:-3:4, 3:-3:4] = False
    torch.testing.assert_close(reconstruct_plate(plane, kept), plane, atol=1e-5, rtol=0)


def test_a_constant_survives_a_hole_of_any_size(device: torch.device) -> None:
    frames = torch.full((1, 1, 70, 50), 0.625, device=device)
    kept = torch.zeros(1, 1, 70, 50, dtype=torch.bool, device=device)
    kept[0, 0, 69, 0] = True
    torch.testing.assert_close(reconstruct_plate(frames, kept), frames)


def test_a_frame_without_a_kept_pixel_is_black_and_does_not_affect_the_others(device: torch.device) -> None:
    frames, kept = random_case((3, 3, 20, 20), 0.25, dtype=torch.float64)
    frames, kept = frames.to(device), kept.to(device)
    kept[1] = False
    found = reconstruct_plate(frames, kept)
    assert not found[1].any()
    for b in (0, 2):
        torch.testing.assert_close(reconstruct_plate(frames[b : b + 1], kept[b : b + 1]), found[b : b + 1])


def test_the_plate_steps_are_stable_for_every_mask(device: torch.device) -> None:
    """Check that the polynomial that the steps apply to the error stays within [−1, 1] on the whole spectrum."""
    lowest, middle = stage.PLATE_LOWEST, (stage.PLATE_HIGHEST + stage.PLATE_LOWEST) / 2
    steps = np.arange(stage.PLATE_STEPS)
    roots = middle + (middle - lowest) * np.cos(np.pi * (2 * steps + 1) / (2 * stage.PLATE_STEPS))
    spectrum = np.linspace(0, 64, 1000)
    assert abs(np.prod(1 - spectrum[:, None] / roots, axis=1)).max() <= 1 + 1e-12


def test_the_plate_is_nearer_than_the_mean_of_the_neighbours_on_a_curved_picture(device: torch.device) -> None:
    rows, columns = torch.arange(32.0)[:, None], torch.arange(32.0)
    wave = (0.5 + 0.4 * torch.sin(rows / 3) * torch.cos(columns / 4))[None, None].to(device)
    kept = random_case((1, 1, 32, 32), 0.25, dtype=torch.float64)[1].to(device)
    plain = (reconstruct_plate(wave, kept, steps=0) - wave).square().mean()
    assert (reconstruct_plate(wave, kept) - wave).square().mean() < 0.5 * plain


def test_drop_blackens_dropped_pixels_in_all_channels(device: torch.device) -> None:
    frames, kept = random_case((2, 3, 8, 8), 0.5, dtype=torch.float64)
    found = drop(frames.to(device), kept.to(device)).cpu()
    np.testing.assert_array_equal(found.numpy(), frames.numpy() * kept.numpy())


@pytest.mark.parametrize("drop", [0.125, 0.25, 0.5])
@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("size", [(300, 451), (1, 40_000), (257, 256)])
def test_a_large_frame_filled_in_strips_equals_the_frame_filled_as_a_whole(
    drop: float, spread: bool, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(5)
    frames = torch.rand(1, 3, *size, generator=generator)
    kept = random_masks(1, *size, drop, generator, spread)
    # The frame as a whole is the reference; `reconstruct_plate` fills it in strips.
    whole = _filled(frames, kept, SIGMA, PLATE_STEPS, PLATE_LOWEST)
    torch.testing.assert_close(reconstruct_plate(frames, kept), whole, atol=1e-6, rtol=0)


def test_a_frame_without_holes_passes_unchanged() -> None:
    frames = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(6))
    assert torch.equal(reconstruct_plate(frames, torch.ones(2, 1, 9, 11, dtype=torch.bool)), frames)
