"""Resize, crop and tiles, compared with Pillow and with slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from processors.stages.resample import centre_crop, resize, tiles
from schemas.errors import StageError


def random_frames(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(32, 32), (17, 90), (100, 33), (1, 1)])
def test_resize_agrees_with_pillows_bilinear(size: tuple[int, int], device: torch.device) -> None:
    frames = random_frames(2, 3, 48, 64)
    found = resize(frames.to(device), *size).cpu().numpy()
    assert found.shape == (2, 3, *size)
    for b in range(2):
        for c in range(3):
            picture = Image.fromarray(frames[b, c].numpy())
            expected = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(found[b, c], expected, atol=1e-5)


def test_a_stripe_pattern_shrinks_to_grey(device: torch.device) -> None:
    frames = (torch.arange(64) % 2).float().expand(1, 1, 64, 64).to(device)
    inner = resize(frames, 8, 8)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)


def test_frames_of_the_requested_size_pass_unchanged(device: torch.device) -> None:
    frames = random_frames(2, 3, 8, 9).to(device)
    assert torch.equal(resize(frames, 8, 9), frames)
    assert torch.equal(centre_crop(frames, 8, 9), frames)
    cut, count = tiles(frames, 8, 9)
    assert count == 1
    assert torch.equal(cut, frames)


def test_centre_crop_keeps_the_middle(device: torch.device) -> None:
    frames = random_frames(2, 3, 9, 12).to(device)
    assert torch.equal(centre_crop(frames, 4, 6), frames[:, :, 2:6, 3:9])


def test_a_short_side_is_padded_with_its_edges(device: torch.device) -> None:
    frames = random_frames(1, 1, 3, 8).to(device)
    found = centre_crop(frames, 6, 4)
    assert torch.equal(found[..., [0], :], frames[..., :1, 2:6])
    assert torch.equal(found[..., 1:4, :], frames[..., 2:6])
    assert torch.equal(found[..., 4:, :], frames[..., -1:, 2:6].expand(1, 1, 2, 4))


def test_tiles_of_one_frame_are_adjacent_and_in_row_order(device: torch.device) -> None:
    frames = random_frames(2, 3, 8, 12).to(device)
    cut, count = tiles(frames, 4, 4)
    assert count == 6
    assert cut.shape == (12, 3, 4, 4)
    for b in range(2):
        for t in range(6):
            row, column = t // 3 * 4, t % 3 * 4
            assert torch.equal(cut[b * 6 + t], frames[b, :, row : row + 4, column : column + 4])


@given(height=st.integers(1, 60), width=st.integers(1, 60), tile=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=80, deadline=None)
def test_the_fewest_tiles_cover_every_pixel(height: int, width: int, tile: tuple[int, int]) -> None:
    frames = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    cut, count = tiles(frames, *tile)
    assert cut.shape == (count, 1, *tile)
    assert count == -(-height // tile[0]) * -(-width // tile[1])
    assert set(cut.flatten().tolist()) == set(range(1, height * width + 1))


@pytest.mark.parametrize("policy", [resize, centre_crop, tiles])
def test_a_size_without_pixels_is_rejected(policy: object) -> None:
    assert callable(policy)
    with pytest.raises(StageError, match="at least 1, got 0×4"):
        policy(random_frames(1, 3, 8, 8), 0, 4)
    with pytest.raises(StageError, match=r"frames: expected \(B, C, H, W\).*got \(3, 8, 8\)"):
        policy(random_frames(3, 8, 8), 4, 4)
