"""Algorithm 1, compared with the same algorithm line by line in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray

from processors.stages import paper
from processors.stages.paper import fill_blocks, reconstruct_paper

Block = NDArray[np.float64]


def printed_basis(u: int, v: int) -> Block:
    """Return 2 α_ij(u, v) / N of equation 3 with pixels from 1 to 8 and frequencies from 0: the orthonormal DCT-II."""
    pixel = np.arange(1, 9)
    rows = (math.sqrt(0.5) if u == 0 else 1.0) * np.cos(math.pi * u / 16 * (2 * pixel - 1))
    columns = (math.sqrt(0.5) if v == 0 else 1.0) * np.cos(math.pi * v / 16 * (2 * pixel - 1))
    return 2 / 8 * np.outer(rows, columns)


PRINTED_BASES = np.array([[printed_basis(u, v) for v in range(8)] for u in range(8)])


def literal_dct(block: Block) -> Block:
    coefficients: Block = (PRINTED_BASES * block).sum((2, 3))
    return coefficients


def literal_algorithm(block: Block, dropped: NDArray[np.bool_], iterations: int) -> tuple[Block, int]:
    """Run Algorithm 1 line by line, with the corrections of docs/adr/0002-algorithm-1.md.

    Returns the block and its number of iterations.
    """
    delta, mu, epsilon, mse_max = 0.03, 0.02, 1e-5, 0.0
    f = np.where(dropped, 0.0, block)
    for d in range(iterations):
        following = f.copy()
        for k, m in zip(*np.nonzero(dropped), strict=True):
            plus, minus = f.copy(), f.copy()
            plus[k, m] += delta
            minus[k, m] -= delta
            gradient = (abs(literal_dct(plus)).sum() - abs(literal_dct(minus)).sum()) / (2 * delta)
            following[k, m] = f[k, m] - mu * gradient
        mse = ((following - f) ** 2).mean()
        if mse < 0.01 * mse_max:
            delta, mu, mse_max = delta / 10, mu / 10, 0.0
        mse_max = max(mse, mse_max)
        f = following
        if mse <= epsilon:
            return f, d + 1
    return f, iterations


def smooth_frames(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Return frames (B, C, H, W) float64: a different wave for each frame and channel, and a little noise."""
    rng = np.random.default_rng(5)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    phase, fy, fx = rng.uniform(0, 6, (3, batch, channels, 1, 1))
    wave = 0.5 + 0.4 * np.sin(phase + fy * rows / 20 + fx * columns / 20)
    return torch.tensor(np.clip(wave + rng.normal(0, 0.02, wave.shape), 0, 1))


def random_mask(batch: int, height: int, width: int, ratio: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 1, height, width, generator=generator) >= ratio


def test_the_literal_transform_is_the_orthonormal_dct() -> None:
    block = np.random.default_rng(0).random((8, 8))
    np.testing.assert_allclose(literal_dct(block), scipy.fft.dctn(block, norm="ortho"), atol=1e-13)
    np.testing.assert_allclose(paper.dct_matrix(), scipy.fft.dct(np.eye(8), axis=0, norm="ortho"), atol=1e-13)


@pytest.mark.parametrize("iterations", [1, 7, 40])
def test_the_batched_version_agrees_with_the_literal_one(iterations: int, device: torch.device) -> None:
    frames = smooth_frames(1, 2, 16, 16)
    kept = random_mask(1, 16, 16, 0.25)
    found = fill_blocks(
        paper._to_blocks(frames).to(device), paper._to_blocks((~kept).expand(1, 2, 16, 16)).to(device), iterations
    )
    ended = []
    for number in range(found.shape[1]):
        channel, row, column = number // 4, number // 2 % 2 * 8, number % 2 * 8
        block = frames[0, channel, row : row + 8, column : column + 8].numpy()
        dropped = ~kept[0, 0, row : row + 8, column : column + 8].numpy()
        expected, used = literal_algorithm(block, dropped, iterations)
        np.testing.assert_allclose(found[:, number].view(8, 8).cpu().numpy(), expected, atol=1e-10)
        ended.append(used)
    if iterations == 40:
        assert len(set(ended)) > 1, "the test proves nothing unless the blocks end at different iterations"


def test_single_precision_is_close_to_double_precision(device: torch.device) -> None:
    frames, kept = smooth_frames(2, 3, 16, 16).to(device), random_mask(2, 16, 16, 0.25).to(device)
    single = reconstruct_paper(frames.float(), kept)
    assert single.dtype == torch.float32
    # A sign that flips by rounding moves a pixel by a step or two, which is allowed for few pixels.
    off = (single.double() - reconstruct_paper(frames, kept)).abs()
    assert off.mean() < 1e-4


def test_algorithm_1_reduces_the_error_of_zero_filling_on_a_smooth_picture(device: torch.device) -> None:
    frames, kept = smooth_frames(2, 3, 32, 32).to(device), random_mask(2, 32, 32, 0.25).to(device)
    error = (reconstruct_paper(frames, kept) - frames).square().mean()
    assert error < 0.01 * frames.masked_fill(kept, 0).square().mean()


def test_the_mask_determines_the_dropped_pixels_and_their_values_are_not_read(device: torch.device) -> None:
    frames, kept = smooth_frames(1, 1, 16, 16).to(device), random_mask(1, 16, 16, 0.25).to(device)
    frames[0, 0, 4:6] = 0.0  # black pixels that were kept
    expected = reconstruct_paper(frames, kept)
    assert torch.equal(expected[0, 0, 4:6][kept[0, 0, 4:6]], frames[0, 0, 4:6][kept[0, 0, 4:6]])
    assert torch.equal(reconstruct_paper(frames.masked_fill(~kept, 0.7), kept), expected)


def test_frames_without_dropped_pixels_and_empty_batches_pass_unchanged(device: torch.device) -> None:
    frames = smooth_frames(1, 3, 8, 8).to(device)
    assert torch.equal(reconstruct_paper(frames, torch.ones(1, 1, 8, 8, dtype=torch.bool, device=device)), frames)
    empty = reconstruct_paper(frames[:0], torch.ones(0, 1, 8, 8, dtype=torch.bool, device=device))
    assert empty.shape == (0, 3, 8, 8)
