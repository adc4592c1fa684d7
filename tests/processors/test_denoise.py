"""Wavelet denoising, compared with PyWavelets and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from skimage.restoration import denoise_wavelet, estimate_sigma

from processors.stages.denoise import denoise, estimated_sigma, shrink
from processors.stages.wavelet import analyse, synthesise
from schemas.errors import StageError

SIZES = [(32, 32), (33, 31), (8, 8), (7, 50), (5, 3), (1, 9), (2, 2), (64, 61)]
# The pictures are noisy because coefficients that tie at a threshold may fall to either side.
METHODS = [("bayes", "BayesShrink", "soft"), ("visu", "VisuShrink", "hard")]


def noisy(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    rows = np.linspace(0, 3, shape[-2])[:, None]
    columns = np.linspace(0, 5, shape[-1])
    picture = 0.5 + 0.3 * np.sin(rows) * np.cos(columns)
    return torch.tensor(picture + np.random.default_rng(3).normal(0, 0.08, shape), dtype=dtype, device=device)


def oracle(frames: torch.Tensor, method: str, mode: str, sigma: float | None, levels: int | None) -> np.ndarray:
    pictures = frames.cpu().numpy()
    out = np.empty_like(pictures)
    for b, c in np.ndindex(pictures.shape[:2]):
        out[b, c] = denoise_wavelet(
            pictures[b, c],
            sigma=sigma,
            wavelet="db1",
            mode=mode,
            wavelet_levels=levels,
            method=method,
            rescale_sigma=False,
        )
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Level value")
def test_the_coefficients_equal_those_of_pywavelets(size: tuple[int, int], levels: int, device: torch.device) -> None:
    frames = noisy((2, 3, *size), device)
    approximation, details = analyse(frames, levels)
    expected = pywt.wavedec2(frames.cpu().numpy(), "db1", mode="symmetric", level=levels, axes=(2, 3))
    np.testing.assert_allclose(approximation.cpu().numpy(), expected[0], atol=1e-12)
    for level, bands in zip(reversed(details), expected[1:], strict=True):
        for band, wanted in zip((level.horizontal, level.vertical, level.diagonal), bands, strict=True):
            np.testing.assert_allclose(band.cpu().numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_transform_gives_the_frames_back(size: tuple[int, int], device: torch.device) -> None:
    frames = noisy((2, 1, *size), device)
    torch.testing.assert_close(synthesise(*analyse(frames, 4)), frames)


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) > 1])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method[0]))
@pytest.mark.parametrize("sigma", [None, 0.02, 0.1])
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.filterwarnings("ignore:Level value")
def test_shrinkage_agrees_with_scikit_image(
    size: tuple[int, int], method: tuple[str, str, str], sigma: float | None, levels: int | None, device: torch.device
) -> None:
    frames = noisy((2, 3, *size), device)
    expected = oracle(frames, method[1], method[2], sigma, levels)
    found = shrink(frames, method[0], sigma, levels)  # type: ignore[arg-type]  # one of the two literals
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-5)


def test_the_published_figures_for_a_noisy_photograph_hold(device: torch.device) -> None:
    from skimage.data import camera

    clean = camera() / 255  # type: ignore[no-untyped-call]  # scikit-image annotates little
    frames = torch.tensor(clean + np.random.default_rng(0).normal(0, 0.1, clean.shape), device=device)[None, None]

    def psnr(found: torch.Tensor) -> float:
        return float(-10 * np.log10(((found[0, 0].cpu().numpy() - clean) ** 2).mean()))

    assert psnr(frames) == pytest.approx(19.990, abs=0.001)
    assert psnr(shrink(frames, "bayes")) == pytest.approx(26.789, abs=0.001)
    assert psnr(shrink(frames, "bayes", 0.1)) == pytest.approx(26.902, abs=0.001)
    assert psnr(shrink(frames, "visu", 0.1)) == pytest.approx(25.212, abs=0.001)


def test_the_estimate_of_sigma_equals_scikit_images_and_ignores_zeros(device: torch.device) -> None:
    frames = noisy((1, 2, 48, 48), device)
    frames[0, 1, :30] = 0.25
    found = estimated_sigma(analyse(frames, 1)[1][0].diagonal)[0, :, 0, 0]
    # scikit-image's estimate_sigma uses db2; the rule is checked on the same db1 coefficients.
    for channel in range(2):
        diagonal = pywt.dwt2(frames[0, channel].cpu().numpy(), "db1")[1][2]
        diagonal = diagonal[np.abs(diagonal) > 1e-12]
        assert found[channel].item() == pytest.approx(np.median(np.abs(diagonal)) / 0.6744897501960817)
    theirs = estimate_sigma(frames[0, 0].cpu().numpy())  # type: ignore[no-untyped-call]  # scikit-image annotates little
    assert found[0].item() == pytest.approx(theirs, rel=0.1)


def test_a_flat_frame_passes_unchanged(device: torch.device) -> None:
    frames = torch.full((1, 3, 16, 16), 0.5, device=device)
    for method in ("bayes", "visu"):
        torch.testing.assert_close(denoise(frames, method), frames)


def test_each_frame_and_channel_is_denoised_independently(device: torch.device) -> None:
    frames = noisy((3, 3, 32, 32), device)
    frames[1] *= 0.1
    together = shrink(frames)
    for b in range(3):
        for c in range(3):
            alone = shrink(frames[b : b + 1, c : c + 1])
            torch.testing.assert_close(together[b : b + 1, c : c + 1], alone)


def test_sigma_zero_changes_nothing_and_denoise_stays_in_range(device: torch.device) -> None:
    frames = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(denoise(frames, sigma=0), frames)
    found = denoise(frames.round(), sigma=0.3)
    assert found.shape == frames.shape
    assert found.dtype == frames.dtype
    assert found.min() >= 0
    assert found.max() <= 1


def test_wrong_arguments_are_named() -> None:
    frames = torch.rand(1, 3, 8, 8)
    with pytest.raises(StageError, match=r"frames: expected \(B, C, H, W\)"):
        denoise(frames[0])
    with pytest.raises(StageError, match=r"floating point.*uint8"):
        denoise(frames.byte())
    with pytest.raises(StageError, match="sigma: expected"):
        denoise(frames, sigma=-0.1)
    with pytest.raises(StageError, match="levels: expected at least 1, got 0"):
        denoise(frames, levels=0)
    with pytest.raises(StageError, match="'sure'"):
        denoise(frames, "sure")  # type: ignore[arg-type]
