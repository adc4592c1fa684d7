"""The attacks with a fixed budget: FGSM, I-FGSM, PGD and L2-PGD, by foolbox's iterations.

FGSM (Goodfellow et al. 2015) is one step of ε. Foolbox's own is untargeted only, so foolbox's basic iterative method
runs with one step. I-FGSM (Kurakin et al. 2017) is that method with ten steps of ε/5 from the frame itself. PGD (Madry
et al. 2018) starts at a random point of the ball and steps by 2.5·ε/steps, so that it can cross the ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.attacks.contract import Logits, in_batches, require_gradients
from lab.attacks.foolbox_model import (
    EagerTensor,
    L2BaseGradientDescent,
    LinfBaseGradientDescent,
    PyTorchTensor,
    criterion,
    model,
)
from lab.attacks.norms import l2_noise, linf_noise


class _LinfDescent(LinfBaseGradientDescent):
    generator: torch.Generator

    def get_random_start(self, x0: EagerTensor, epsilon: float) -> EagerTensor:
        return PyTorchTensor(x0.raw + linf_noise(x0.raw, epsilon, self.generator))


class _L2Descent(L2BaseGradientDescent):
    generator: torch.Generator

    def get_random_start(self, x0: EagerTensor, epsilon: float) -> EagerTensor:
        return PyTorchTensor(x0.raw + l2_noise(x0.raw, epsilon, self.generator))


_DESCENTS: dict[str, type[_LinfDescent | _L2Descent]] = {"linf": _LinfDescent, "l2": _L2Descent}


@dataclass(frozen=True)
class GradientDescent:
    """A gradient attack within ε: `steps` steps of `step` · ε along the gradient's sign (`linf`) or itself (`l2`)."""

    name: str
    eps: float
    norm: str
    steps: int
    step: float
    random_start: bool

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`."""
        require_gradients(logits, frames)
        descent = _DESCENTS[self.norm](rel_stepsize=self.step, steps=self.steps, random_start=self.random_start)
        descent.generator = generator
        network = model(logits, frames.device)
        found = [
            descent.run(network, part, criterion(part_labels, part_targets), epsilon=self.eps)
            for part, part_labels, part_targets in in_batches(frames, labels, targets)
        ]
        return torch.cat(found)
