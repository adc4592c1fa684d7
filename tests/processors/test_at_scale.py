"""Kept pixels resampled in one step to the network's size: shapes, errors, oracles, gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.masks import random_masks
from processors.stages.at_scale import LEAST_SHARE, at_scale, density
from processors.stages.resample import resize
from schemas.errors import StageError
from tests.processors.kernel_rig import random_case


def hat_weights(side: int, wanted: int) -> np.ndarray:
    """Return the weights (wanted, side) of an antialiased bilinear resize from `side` pixels to `wanted`."""
    scale = side / wanted
    reach = max(scale, 1.0)
    middle = (np.arange(wanted) + 0.5) * scale
    place = np.arange(side) + 0.5
    weight = np.clip(1 - np.abs(place[None] - middle[:, None]) / reach, 0, None)
    return np.asarray(weight / weight.sum(1, keepdims=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (13, 9), (24, 40)])
def test_at_scale_returns_the_weighted_mean_of_the_kept_pixels_as_numpy_does(
    device: torch.device, size: tuple[int, int], channels: int
) -> None:
    frames, kept = random_case((2, channels, 29, 44), 0.6)
    found, known = (x.cpu().numpy() for x in at_scale(frames.to(device), kept.to(device), *size))
    rows, columns = hat_weights(29, size[0]), hat_weights(44, size[1])
    mask = kept.double().numpy()
    share = rows @ mask @ columns.T
    mean = rows @ (frames.double().numpy() * mask) @ columns.T / np.maximum(share, 1e-30)
    near = np.abs(share - LEAST_SHARE) < 1e-5
    np.testing.assert_array_equal(known[~near], (share >= LEAST_SHARE)[~near])
    np.testing.assert_allclose(found, np.where(known, mean, 0), atol=1e-5)


def test_with_every_pixel_kept_at_scale_equals_resize(device: torch.device) -> None:
    frames = random_case((2, 3, 50, 70), 0)[0].to(device)
    found, known = at_scale(frames, torch.ones_like(frames[:, :1], dtype=torch.bool), 16, 24)
    torch.testing.assert_close(found, resize(frames, 16, 24), atol=1e-6, rtol=0)
    assert known.all()


def test_at_scale_agrees_with_scikit_image_on_blocks_of_whole_pixels() -> None:
    """Compare in the middle of large constant squares, where any mean of kept pixels is the value of the square."""
    from skimage.measure import block_reduce

    squares = random_case((1, 3, 6, 5), 0)[0]
    frames = squares.repeat_interleave(60, 2).repeat_interleave(60, 3)
    kept = random_masks(1, 360, 300, 0.75, torch.Generator().manual_seed(0))
    found, known = at_scale(frames, kept, 30, 25)
    centres = found[0, :, 2::5, 2::5].permute(1, 2, 0).numpy()
    picture = frames[0].permute(1, 2, 0).numpy()
    expected = block_reduce(picture, (60, 60, 1), np.mean)  # type: ignore[no-untyped-call]  # no annotations
    assert known.all()
    np.testing.assert_allclose(centres, expected, atol=1e-5)


@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ratio=st.sampled_from([0.0, 0.25, 0.75, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_output_stays_within_the_range_of_the_kept_pixels_for_any_size_and_mask(
    batch: int, channels: int, height: int, width: int, wanted: tuple[int, int], ratio: float, seed: int
) -> None:
    frames, kept = random_case((batch, channels, height, width), ratio, seed)
    frames = 0.25 + 0.5 * frames
    found, known = at_scale(frames, kept, *wanted)
    assert found.shape == (batch, channels, *wanted)
    assert known.shape == (batch, 1, *wanted)
    assert known.dtype == torch.bool
    shown = found[known.expand_as(found)]
    assert ((shown > 0.2499) & (shown < 0.7501)).all()
    assert (found[~known.expand_as(found)] == 0).all()


def test_a_hole_is_unknown_and_black(device: torch.device) -> None:
    frames, kept = (x.to(device) for x in random_case((1, 3, 64, 64), 0))
    kept[..., :32, :32] = False
    found, known = at_scale(frames, kept, 8, 8)
    assert not known[..., :3, :3].any()
    assert known[..., 4:, 4:].all()
    assert (found[..., :3, :3] == 0).all()


def test_double_precision_agrees_with_its_numerical_gradient() -> None:
    frames, kept = random_case((1, 1, 9, 8), 0.3)
    frames = (0.25 + 0.5 * frames).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: at_scale(x, kept, 4, 4)[0], (frames,))


def test_density_is_the_number_of_kept_pixels_per_output_pixel() -> None:
    kept = torch.zeros(2, 1, 64, 48, dtype=torch.bool)
    kept[1] = True
    kept[1, :, ::2] = False
    assert density(kept, 32, 32).tolist() == [0.0, 1.5]


def test_an_output_size_below_one_is_rejected() -> None:
    frames, kept = random_case((1, 3, 8, 8), 0.25)
    with pytest.raises(StageError, match="at least 1, got 0×4"):
        at_scale(frames, kept, 0, 4)
    with pytest.raises(StageError, match="at least 1, got 4×0"):
        density(kept, 4, 0)
