"""Bit depth compared with its formula, and JPEG with libjpeg through Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from processors.stages.preprocess.bit_depth import reduce_depth
from processors.stages.preprocess.jpeg import Subsampling, compress
from schemas.errors import StageError
from tests.processors.preprocess_rig import smooth_pictures


def libjpeg(pictures: Tensor, quality: int, subsampling: Subsampling) -> np.ndarray:
    decoded = []
    for picture in (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        options = {} if picture.shape[2] == 1 else {"subsampling": subsampling}
        Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(
            buffer, "JPEG", quality=quality, **options
        )
        decoded.append(np.asarray(Image.open(io.BytesIO(buffer.getvalue()))).reshape(picture.shape))
    return np.stack(decoded).transpose(0, 3, 1, 2) / 255


@pytest.mark.parametrize("quality", [1, 10, 50, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (3, 28, 28), (3, 37, 51), (1, 28, 28)])
def test_jpeg_compression_loses_the_same_detail_as_libjpeg(
    quality: int, subsampling: Subsampling, channels: int, height: int, width: int
) -> None:
    pictures = (smooth_pictures(2, channels, height, width) * 255).round() / 255
    got, wanted = compress(pictures, quality, subsampling).numpy(), libjpeg(pictures, quality, subsampling)
    change = np.abs(wanted - pictures.numpy()).mean()
    # libjpeg computes in integers: a coefficient at a rounding boundary may be rounded to the other side.
    assert np.abs(got - wanted).mean() < min(1 / 255, max(0.25 * change, 0.8 / 255))
    np.testing.assert_allclose(got * 255, np.round(got * 255), atol=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 100), st.sampled_from([(1, 9, 7), (3, 8, 8), (3, 17, 33)]))
@settings(max_examples=25, deadline=None)
def test_jpeg_stays_in_range_and_a_picture_does_not_depend_on_its_batch(
    seed: int, quality: int, size: tuple[int, int, int]
) -> None:
    pictures = torch.rand(2, *size, generator=torch.Generator().manual_seed(seed))
    together = compress(pictures, quality)
    assert together.shape == pictures.shape
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], compress(pictures[i : i + 1], quality), atol=1e-6, rtol=0)


def test_jpeg_rejects_pictures_with_two_channels() -> None:
    with pytest.raises(StageError, match="1 or 3 channels, got 2"):
        compress(torch.rand(1, 2, 8, 8), 75)


@given(st.integers(1, 8), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_bit_depth_follows_the_formula_of_feature_squeezing(bits: int, seed: int) -> None:
    pictures = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    levels = 2**bits - 1
    np.testing.assert_allclose(reduce_depth(pictures, bits), np.rint(pictures.numpy() * levels) / levels, atol=1e-7)
    assert len(set(reduce_depth(pictures, bits).flatten().tolist())) <= 2**bits
