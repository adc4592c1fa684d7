"""Baseline defences against independent oracles: a JPEG codec, scipy's DCT and scikit-image's wavelets."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.restoration import denoise_wavelet
from torch import Tensor

from lab.baselines import Baseline, BitDepth, FeatureDistillation, Jpeg, PixelDeflection, Rand, Shield
from lab.baselines.contract import to_blocks
from lab.baselines.pixel_deflection import deflect
from schemas.errors import ConfigError, StageError
from tests.lab.rng import rng


def smooth(batch: int = 3, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Return pictures with a little texture, rounded to 8 bits."""
    coarse = torch.rand(batch, channels, 5, 5, generator=rng(1))
    fine = 0.1 * torch.rand(batch, channels, height, width, generator=rng(2))
    frames = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") + fine
    return (frames.clamp(0, 1) * 255).round() / 255


def codec(frames: Tensor, quality: int) -> np.ndarray:
    pictures = []
    for picture in (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(picture.squeeze()).save(buffer, format="jpeg", quality=quality)
        pictures.append(np.asarray(Image.open(io.BytesIO(buffer.getvalue()))).reshape(picture.shape))
    return np.stack(pictures).transpose(0, 3, 1, 2) / 255


@pytest.mark.parametrize("make", [Shield, FeatureDistillation, PixelDeflection, BitDepth, lambda: Jpeg(75)])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (1, 3, 13, 21)])
def test_a_baseline_keeps_shape_and_range(make: Callable[[], Baseline], shape: tuple[int, ...]) -> None:
    frames = smooth(*shape)
    before = frames.clone()
    cleaned = make()(frames, rng())
    assert cleaned.shape == frames.shape
    assert cleaned.dtype == frames.dtype
    assert cleaned.min() >= 0
    assert cleaned.max() <= 1
    assert not torch.equal(cleaned, frames)
    assert (cleaned - frames).square().mean() < 0.03
    assert torch.equal(frames, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 50, 90])
def test_jpeg_equals_the_codecs_round_trip(quality: int, channels: int) -> None:
    frames = smooth(channels=channels)
    np.testing.assert_allclose(Jpeg(quality)(frames, rng()), codec(frames, quality), atol=1e-6)


def test_jpeg_rejects_other_qualities_and_shapes() -> None:
    for quality in (0, 96):
        with pytest.raises(ConfigError, match=f"1 to 95, got {quality}"):
            Jpeg(quality)
    with pytest.raises(StageError, match="1 or 3"):
        Jpeg(50)(torch.zeros(1, 2, 8, 8), rng())


@pytest.mark.parametrize("shape", [(32, 32), (13, 21)])
def test_shield_takes_each_block_from_one_quality(shape: tuple[int, int]) -> None:
    frames = smooth(6, 3, *shape)
    qualities = (10, 50, 90)
    blocks = to_blocks(Shield(qualities)(frames, rng()))
    sources = torch.stack([to_blocks(Jpeg(quality)(frames, rng())) for quality in qualities])

    # If a side is no multiple of 8, its last block is padded in the same way in both pictures.
    same = (sources - blocks).abs().amax((2, 5, 6)) < 1e-6
    assert same.any(0).all()
    shares = same.float().mean((1, 2, 3))
    assert shares.min() > 0.15
    assert shares.max() < 0.55


def test_shields_qualities_follow_from_the_generator_and_differ_between_frames() -> None:
    frame = smooth(1)
    frames = frame.expand(4, -1, -1, -1)
    shield = Shield()
    first = shield(frames, rng(1))
    assert torch.equal(first, shield(frames, rng(1)))
    assert not torch.equal(first, shield(frames, rng(2)))
    assert not torch.equal(first[0], first[1])
    with pytest.raises(ConfigError, match="qualities"):
        Shield(())


def test_feature_distillation_quantises_each_blocks_dct() -> None:
    frames = smooth(2)
    steps = np.full((8, 8), 60.0)
    steps[:3, :3] = 12.0
    expected = frames.numpy().astype(np.float64) * 255
    for picture in expected:
        for channel in picture:
            for row in range(0, 32, 8):
                for column in range(0, 32, 8):
                    block = channel[row : row + 8, column : column + 8]
                    rounded = np.round(scipy.fft.dctn(block, norm="ortho") / steps) * steps
                    block[:] = scipy.fft.idctn(rounded, norm="ortho")

    cleaned = FeatureDistillation(step=60, sensitive_step=12, band=3)(frames.double(), rng())

    np.testing.assert_allclose(cleaned, (expected / 255).clip(0, 1), atol=1e-9)


def test_a_deflected_pixel_is_replaced_by_a_whole_pixel_of_its_window() -> None:
    height, width, window = 24, 40, 5
    place = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    frames = torch.cat((place, 2 * place), 1).expand(50, -1, -1, -1)

    moved = deflect(frames, 1, window, rng())

    changed = (moved != frames)[:, 0].nonzero()
    assert 40 < len(changed) <= 50  # a pixel sometimes draws itself
    assert torch.equal(moved[:, 1], 2 * moved[:, 0])
    batch, row, column = changed.T
    origin = moved[batch, 0, row, column].long()
    down, right = origin // width - row, origin % width - column
    assert max(down.abs().max(), right.abs().max()) <= window
    for offset in (down, right):
        assert offset.min() <= -window + 1
        assert offset.max() >= window - 1


def test_pixel_deflection_denoises_luma_and_colour_like_scikit_image() -> None:
    frames = smooth(2).double()
    cleaned = PixelDeflection(share=0.0, sigma=0.04)(frames, rng())
    for before, after in zip(frames.permute(0, 2, 3, 1).numpy(), cleaned.permute(0, 2, 3, 1).numpy(), strict=True):
        inside = (after > 0).all(2) & (after < 1).all(2)
        for channel, got in zip(rgb2ycbcr(before).transpose(2, 0, 1), rgb2ycbcr(after).transpose(2, 0, 1), strict=True):
            low, span = channel.min(), np.ptp(channel)
            stretched = (channel - low) / span
            denoised = denoise_wavelet(
                stretched, sigma=0.04, wavelet="db1", mode="soft", method="BayesShrink", rescale_sigma=False
            )
            assert np.abs(denoised - stretched).max() > 1e-3
            np.testing.assert_allclose(got[inside], (low + span * denoised)[inside], atol=0.02)  # of 219


def test_pixel_deflection_is_seeded_and_rejects_invalid_settings() -> None:
    frames = smooth()
    defence = PixelDeflection(share=0.05)
    assert torch.equal(defence(frames, rng(1)), defence(frames, rng(1)))
    assert not torch.equal(defence(frames, rng(1)), defence(frames, rng(2)))
    for wrong in ({"share": 1.5}, {"window": 0}, {"sigma": -0.1}):
        with pytest.raises(ConfigError, match="pixel deflection"):
            PixelDeflection(**wrong)


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (40, 1, 28, 28), (6, 2, 13, 21), (3, 3, 1, 1)])
def test_rand_pastes_the_shrunken_picture_at_a_random_place_on_black(shape: tuple[int, ...]) -> None:
    frames = 0.5 + 0.5 * smooth(*shape)
    cleaned = Rand()(frames, rng())
    assert cleaned.shape == frames.shape
    seen = set()
    for picture, shrunk in zip(frames, cleaned, strict=True):
        visible = (shrunk > 0).all(0)
        rows, columns = visible.any(1).nonzero()[:, 0], visible.any(0).nonzero()[:, 0]
        top, left, height, width = rows[0], columns[0], len(rows), len(columns)
        part = shrunk[:, top : top + height, left : left + width]
        expected = torch.nn.functional.interpolate(picture[None], (height, width), mode="bilinear")[0]
        torch.testing.assert_close(part, expected)
        assert visible.sum() == height * width
        seen.add((int(top), int(left), height))
    if shape[2] == 32:
        assert {height for _, _, height in seen} == {29, 30, 31}
        assert len(seen) > 10


def test_the_gradient_of_rand_is_that_of_its_draw() -> None:
    frames = smooth(4).requires_grad_()
    (gradient,) = torch.autograd.grad(Rand()(frames, rng()).sum(), frames)
    change = 1e-2 * torch.rand(frames.shape, generator=rng(5))
    with torch.no_grad():
        moved = Rand()(frames + change, rng()).sum() - Rand()(frames, rng()).sum()
    torch.testing.assert_close((gradient * change).sum(), moved, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_rounds_to_the_nearest_level(bits: int) -> None:
    frames = smooth()
    levels = torch.linspace(0, 1, 2**bits)
    nearest = levels[(frames[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(BitDepth(bits)(frames, rng()), nearest)


def test_invalid_sizes_and_bit_depths_are_rejected() -> None:
    with pytest.raises(ConfigError, match="expected 1 to 8 bits, got 9"):
        BitDepth(9)
    with pytest.raises(ConfigError, match="above 0 and at most 1, got 0"):
        Rand(0)
