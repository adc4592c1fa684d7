"""Algorithm 1 step by step, for the paper's Figures 4 and 5; `processors.stages.paper` is the product's version.

It follows the same reading (docs/adr/0002-algorithm-1.md), with the gradient of line 10 as printed: the L1 norms of the
DCT with one pixel moved by ±Δ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from processors.stages.paper import dct_matrix

Blocks = NDArray[np.float64]
Value = TypeVar("Value", np.float64, np.bool_)

SHRINK_BELOW = 0.01
STOP = 1e-5


@dataclass(frozen=True)
class Iteration:
    """One round of one block: mean squared change, its Δ and μ, and the block's error afterwards."""

    mse: float
    distortion: float
    step: float
    error: float
    """Mean squared difference from the clean block."""


def descend(
    clean: Blocks,
    dropped: NDArray[np.bool_],
    distortion: float = 0.03,
    step: float = 0.02,
    iterations: int = 100,
) -> tuple[Blocks, list[Iteration]]:
    """Fill the `dropped` pixels of one block (8, 8) in [0, 1]. Return the filled block and the rounds."""
    basis = np.eye(64).reshape(64, 8, 8)[dropped.reshape(64)]
    moves = _dct(basis)
    filled = np.where(dropped, 0.0, clean)
    largest, rounds = 0.0, []
    for _ in range(iterations):
        coefficients = _dct(filled)
        raised = np.abs(coefficients + distortion * moves).sum((1, 2))
        lowered = np.abs(coefficients - distortion * moves).sum((1, 2))
        following = filled.copy()
        following[dropped] -= step * (raised - lowered) / (2 * distortion)
        mse = float(((following - filled) ** 2).mean())
        filled = following
        rounds.append(Iteration(mse, distortion, step, float(((filled - clean) ** 2).mean())))
        if mse < SHRINK_BELOW * largest:
            distortion, step, largest = distortion / 10, step / 10, 0.0
        largest = max(mse, largest)
        if mse <= STOP:
            break
    return filled, rounds


def _dct(blocks: Blocks) -> Blocks:
    matrix = dct_matrix().numpy()
    coefficients: Blocks = matrix @ blocks @ matrix.T
    return coefficients


def blocks_of_frame(frame: NDArray[Value]) -> NDArray[Value]:
    """Return a frame (H, W), whose sides are multiples of 8, as blocks (N, 8, 8), row by row."""
    rows, columns = frame.shape[0] // 8, frame.shape[1] // 8
    return frame.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)


def traced(frame: Blocks, kept: NDArray[np.bool_], rounds: int) -> list[Iteration]:
    """Return means over the blocks of a grey frame (H, W), round by round. A finished block keeps its last state."""
    clean, dropped = blocks_of_frame(frame), blocks_of_frame(~kept)
    histories = [descend(block, holes, iterations=rounds)[1] for block, holes in zip(clean, dropped, strict=True)]
    found = []
    for i in range(rounds):
        states = [history[min(i, len(history) - 1)] for history in histories]
        ended = [i >= len(history) for history in histories]
        mse = float(np.mean([0.0 if over else state.mse for state, over in zip(states, ended, strict=True)]))
        means = (float(np.mean([getattr(s, name) for s in states])) for name in ("distortion", "step", "error"))
        found.append(Iteration(mse, *means))
    return found


def mean_psnr(
    frames: list[Blocks], masks: list[NDArray[np.bool_]], distortion: float, step: float, iterations: int = 100
) -> float:
    """Return the PSNR in dB of Algorithm 1 with other steps, mean over grey frames (H, W), filled pixels in [0, 1]."""
    found = []
    for frame, kept in zip(frames, masks, strict=True):
        errors = [
            ((descend(block, holes, distortion, step, iterations)[0].clip(0, 1) - block) ** 2).mean()
            for block, holes in zip(blocks_of_frame(frame), blocks_of_frame(~kept), strict=True)
        ]
        found.append(-10 * np.log10(max(float(np.mean(errors)), 1e-10)))
    return float(np.mean(found))
