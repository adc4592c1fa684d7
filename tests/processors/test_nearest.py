"""Dropped pixels filled with the nearest kept one."""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt

from processors.stages.nearest import reconstruct_nearest


def test_each_pixel_is_copied_from_a_nearest_kept_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(3, 1, 13, 18, generator=generator) < 0.3
    # Each pixel's value is its position, and a copied value therefore is the position of its source.
    place = torch.arange(13 * 18.0).view(1, 1, 13, 18).expand(3, 2, -1, -1)
    filled = reconstruct_nearest(place, kept)
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(18), indexing="ij")
    for number in range(3):
        mask = kept[number, 0]
        source = filled[number, 0].long()
        assert mask.flatten()[source].all()
        found = ((source // 18 - rows) ** 2 + (source % 18 - columns) ** 2).float().sqrt()
        expected = torch.from_numpy(distance_transform_edt(~mask.numpy())).float()
        torch.testing.assert_close(found, expected)
    assert (filled[:, 0] == filled[:, 1]).all()


def test_the_upper_or_left_one_of_two_equally_near_pixels_is_copied() -> None:
    frames = torch.arange(9.0).view(1, 1, 3, 3)
    for positions, expected in (((1, 7), 1.0), ((3, 5), 3.0)):
        kept = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
        kept.view(-1)[list(positions)] = True
        assert reconstruct_nearest(frames, kept)[0, 0, 1, 1] == expected


def test_no_pixel_is_copied_from_further_than_two_blocks() -> None:
    kept = torch.zeros(1, 1, 8, 40, dtype=torch.bool)
    kept[..., 3, 20] = True
    filled = reconstruct_nearest(torch.ones(1, 1, 8, 40), kept)[0, 0, 3]
    assert filled.nonzero().flatten().tolist() == list(range(4, 37))


def test_without_a_kept_pixel_the_frame_is_black() -> None:
    frames = torch.ones(1, 1, 8, 8)
    assert reconstruct_nearest(frames, torch.zeros(1, 1, 8, 8, dtype=torch.bool)).sum() == 0
