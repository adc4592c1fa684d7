"""BPDA and BPDA + EOT as the paper's authors released them (github.com/YiZeng623/Advanced-Gradient-Obfuscating).

They are plain gradient descent on the cross-entropy to a target, x ← clamp(x − η·∇, 0, 1), one picture at a time. A
picture stops when it is classified as the target or its l2 (root mean square) exceeds the bound. `eval_BPDA_EOT.py`
takes the gradient with respect to `adv[index]`, which is the clean picture until the loop ends. So all its rounds
follow the direction at the start. `at_clean` does the same; without it the gradient is that of the current picture, as
in the cells `EOT_compare` of the released notebook, which give the paper's figure for Rand.
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
    """The result: `frames` (n, C, H, W) at the end, and `correct` and `found` (rounds, n) bool after each round.

    `correct` marks pictures that got their label, `found` those whose attack had reached the target.
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
    """Attack frames (n, C, H, W) in [0, 1] for `rounds` rounds, each with the mean gradient of `samples` draws.

    `defended` classifies the pictures; `gradient_through` gives the gradient. Each round classifies the picture before
    the round's step, under a fresh draw. A stopped picture keeps its last class.
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
