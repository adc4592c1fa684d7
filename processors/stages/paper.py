"""Reconstruction by Algorithm 1 of SUPER-IoT (Qiu et al. 2021, section IV-C), batched over blocks.

Each 8×8 block is filled to lower the L1 norm of its DCT: gradient descent on the dropped pixels with the central
difference over ±Δ as gradient. docs/adr/0002-algorithm-1.md explains our reading of the paper.

By linearity, moving pixel n by ±Δ moves coefficient F_c by ±Δ·b_nc, with b the orthonormal DCT basis. Since |F + t| −
|F − t| = 2·sign(t)·clamp(F, −|t|, |t|), line 10 of the algorithm is

    grad(n) = Σ_c b_nc · clamp(F_c / (Δ·|b_nc|), −1, 1).

For one coefficient, |b_nc| has few values over the 64 pixels (symmetries of the cosine). Therefore 484 clamps a block
serve all pixels instead of 64 · 64: the gradient is two constant matrices with a clamp between them.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.shapes import check_kept

SIDE = 8
PIXELS = SIDE * SIDE
DISTORTION = 0.03  # Δ
STEP = 0.02  # μ
STOP = 1e-5  # ε
SHRINK_BELOW = 0.01
ITERATIONS = 100
# Number of blocks whose tables fit the second-level cache together; a GPU processes all at once.
CHUNK_CPU = 512
# Finished blocks leave the batch only now and then: removing them means a copy, and on a GPU a wait.
COMPACT_EVERY = 4


def dct_matrix() -> Tensor:
    """Return the orthonormal DCT-II of length 8 as a matrix (frequency, position), float64."""
    position = torch.arange(SIDE, dtype=torch.float64)
    frequency = position[:, None]
    matrix = torch.cos(math.pi / (2 * SIDE) * frequency * (2 * position + 1)) * math.sqrt(2 / SIDE)
    matrix[0] *= math.sqrt(0.5)
    return matrix


@cache
@torch.inference_mode(False)  # else the first call's mode would decide whether later ones have gradients
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return `analysis` (484, 64), `synthesis` (64, 484): gradient = synthesis @ clamp(analysis @ block / Δ, −1, 1)."""
    analysis, synthesis = [], []
    for basis in torch.kron(dct_matrix(), dct_matrix()):
        # Equal magnitudes differ by rounding; none is near zero.
        magnitude = (basis.abs() * 1e12).round()
        for value in magnitude.unique():
            shares = magnitude == value
            analysis.append(basis / basis[shares].abs().mean())
            synthesis.append(torch.where(shares, basis, 0.0))
    return torch.stack(analysis).to(device, dtype), torch.stack(synthesis, dim=1).to(device, dtype)


def fill_blocks(blocks: Tensor, dropped: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Run Algorithm 1 on M blocks of 64 pixels in row order: (64, M) to (64, M), not clamped to [0, 1].

    `dropped` is (64, M) bool. Kept pixels pass unchanged; dropped ones start at zero. A block ends on its own if its
    mean squared change is at most ε, or after `iterations`.
    """
    chunk = CHUNK_CPU if blocks.device.type == "cpu" else max(1, blocks.shape[1])
    parts = [
        _descend(f, d, iterations)
        for f, d in zip(torch.split(blocks, chunk, 1), torch.split(dropped, chunk, 1), strict=True)
    ]
    return torch.cat(parts, dim=1) if parts else blocks


def _descend(blocks: Tensor, dropped: Tensor, iterations: int) -> Tensor:
    analysis, synthesis = _tables(blocks.device, blocks.dtype)
    result = blocks.masked_fill(dropped, 0.0)
    f, movable = result, dropped.to(blocks.dtype)
    columns = torch.arange(f.shape[1], device=f.device)
    per_distortion = torch.full((f.shape[1],), 1 / DISTORTION, dtype=f.dtype, device=f.device)
    step = torch.full_like(per_distortion, STEP)
    mse_max = torch.zeros_like(step)
    running = torch.ones_like(step, dtype=torch.bool)
    for iteration in range(iterations):
        gradient = synthesis @ (analysis @ (f * per_distortion)).clamp_(-1, 1)
        change = gradient.mul_(movable).mul_(step)
        f = f - change
        mse = change.square_().mean(0)
        shrink = mse < SHRINK_BELOW * mse_max
        per_distortion = torch.where(shrink, per_distortion * 10, per_distortion)
        step = torch.where(shrink, step / 10, step)
        mse_max = torch.where(shrink, mse, torch.maximum(mse, mse_max))
        running &= mse > STOP
        # A finished block stays in the batch for a while, without moving.
        step *= running
        if iteration % COMPACT_EVERY == COMPACT_EVERY - 1 or iteration == iterations - 1:
            result[:, columns] = f
            left = running.nonzero()[:, 0]
            if not len(left):
                break
            columns, f, movable = columns[left], f[:, left], movable[:, left]
            per_distortion, step, mse_max = per_distortion[left], step[left], mse_max[left]
            running = running[left]
    return result


def reconstruct_paper(frames: Tensor, kept: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Fill the dropped pixels of `frames` (B, C, H, W) in [0, 1] by Algorithm 1, each channel separately.

    `kept` is (B, 1, H, W) bool; values of dropped pixels are not read. Kept pixels pass unchanged, filled ones are
    clamped to [0, 1]. Sides that are no multiple of 8 are extended by their edge pixels, kept or dropped.
    """
    check_kept(frames, kept)
    batch, channels, height, width = frames.shape
    margins = (0, -width % SIDE, 0, -height % SIDE)
    padded = F.pad(frames, margins, mode="replicate")
    dropped = F.pad((~kept).to(frames.dtype), margins, mode="replicate").bool().expand(padded.shape)
    rows, columns = padded.shape[2] // SIDE, padded.shape[3] // SIDE
    filled = fill_blocks(_to_blocks(padded), _to_blocks(dropped), iterations).clamp(0, 1)
    grid = filled.view(SIDE, SIDE, batch, channels, rows, columns).permute(2, 3, 4, 0, 5, 1)
    whole = grid.reshape(padded.shape)[:, :, :height, :width]
    return torch.where(kept, frames, whole)


def _to_blocks(padded: Tensor) -> Tensor:
    batch, channels, height, width = padded.shape
    grid = padded.reshape(batch, channels, height // SIDE, SIDE, width // SIDE, SIDE)
    return grid.permute(3, 5, 0, 1, 2, 4).reshape(PIXELS, -1)
