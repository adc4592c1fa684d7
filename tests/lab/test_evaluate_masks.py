"""Random masks of the lab: the drop ratio, the codebooks and the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lab import masks
from lab.masks import random_masks
from schemas.errors import ConfigError
from schemas.pixels.masks import codebook
from tests.lab.rng import rng


@pytest.mark.parametrize("spread", [True, False])
def test_every_block_loses_exactly_the_drop_ratio(spread: bool) -> None:
    kept = random_masks(40, 32, 24, 0.25, rng(), spread)
    assert kept.shape == (40, 1, 32, 24)
    assert kept.dtype == torch.bool
    blocks = kept.view(40, 4, 8, 3, 8).sum((2, 4))
    assert (blocks == 48).all()


def test_a_mask_consists_of_rows_of_one_cameras_codebook() -> None:
    kept = random_masks(5, 16, 16, 0.25, rng())
    books = [set(codebook((masks._CAMERA_SEED, camera), 16).tolist()) for camera in range(masks.CAMERAS)]
    for mask in kept[:, 0].numpy():
        blocks = mask.reshape(2, 8, 2, 8).transpose(0, 2, 1, 3).reshape(4, 64)
        words = np.packbits(blocks, axis=1, bitorder="little").view("<u8")[:, 0].tolist()
        assert any(book.issuperset(words) for book in books)


def test_masks_differ_between_pictures_and_follow_from_the_seed() -> None:
    kept = random_masks(50, 32, 32, 0.5, rng(3))
    assert len(torch.unique(kept.flatten(1), dim=0)) == 50
    assert kept.equal(random_masks(50, 32, 32, 0.5, rng(3)))
    assert not kept.equal(random_masks(50, 32, 32, 0.5, rng(4)))


def test_spread_masks_have_fewer_neighbouring_dropped_pixels() -> None:
    def neighbours(spread: bool) -> int:
        dropped = ~random_masks(50, 32, 32, 0.25, rng(), spread)
        return int((dropped[..., 1:] & dropped[..., :-1]).sum())

    assert neighbours(True) < 0.7 * neighbours(False)


def test_masks_cover_frames_that_are_no_multiple_of_blocks() -> None:
    assert random_masks(3, 13, 5, 0.5, rng()).shape == (3, 1, 13, 5)


@pytest.mark.parametrize("ratio", [-0.1, 0.9, float("nan")])
def test_a_drop_ratio_that_no_camera_uses_is_rejected(ratio: float) -> None:
    with pytest.raises(ConfigError, match=r"drop ratio: expected 0 to 0\.875"):
        random_masks(1, 8, 8, ratio, rng())
