"""BPDA and BPDA + EOT as the paper's authors released them (github.com/YiZeng623/Advanced-Gradient-Obfuscating).

Plain gradient descent on the cross-entropy to a target, x ← clamp(x − η·∇, 0, 1), one picture as long as neither its
answer was the target nor its l2 (root mean square) above the bound. `eval_BPDA_EOT.py` takes the gradient with respect
to `adv[index]`, which is the clean picture until the loop ends: all its rounds go in a direction that is right at the
start. `at_clean` does that; without it the gradient is that of the current picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks.contract import Defended
from lab.attacks.eot import loss_gradient


@dataclass(frozen=True)
class Rounds:
    """`frames` (n, C, H, W) at the end; after each round, which got their label and whose attack had found the target:
    `correct` and `found` (rounds, n) bool.
    """

    frames: Tensor
    correct: NDArray[np.bool_]
    found: NDArray[np.bool_]


def descend(
    defended: Defended,
    gradient_through: Defended,
    frames: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    rate: float,
    rounds: int,
    bound: float,
    samples: int,
    at_clean: bool,
    generator: torch.Generator,
) -> Rounds:
    """Attack frames (n, C, H, W) in [0, 1] for `rounds` rounds, with the mean gradient of `samples` draws in each.

    Pictures are shown to `defended`; the gradient comes from `gradient_through`. The answer of a round is to the
    picture before its step, under a fresh draw; a picture that was stopped keeps its last one.
    """
    current, stopped = frames.clone(), torch.zeros(len(frames), dtype=torch.bool)
    answers = torch.zeros(len(frames), dtype=torch.int64)
    found = torch.zeros(len(frames), dtype=torch.bool)
    corrects, founds = [], []
    for _ in range(rounds):
        moving = (~stopped).nonzero()[:, 0]
        if len(moving):
            with torch.no_grad():
                answers[moving] = defended(current[moving], generator).argmax(1)
            beyond = (current - frames).flatten(1).square().mean(1).sqrt() > bound
            found |= ~stopped & (answers == targets) & ~beyond
            stopped |= found | beyond
            moving = (~stopped).nonzero()[:, 0]
        if len(moving):
            point = (frames if at_clean else current)[moving]
            gradient = loss_gradient(gradient_through, point, targets[moving], samples, generator) / samples
            current[moving] = (current[moving] - rate * gradient).clamp(0, 1)
        corrects.append((answers == labels).numpy())
        founds.append(found.numpy().copy())
    return Rounds(current, np.stack(corrects), np.stack(founds))
