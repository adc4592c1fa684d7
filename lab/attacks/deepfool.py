"""DeepFool (Moosavi-Dezfooli et al. 2016), by foolbox: steps to the nearest linearised boundary, L2, untargeted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.attacks.contract import Logits, in_batches, margins, require_gradients
from lab.attacks.foolbox_model import L2DeepFoolAttack, criterion, model
from lab.attacks.norms import into_l2_ball
from schemas.errors import ConfigError

# Foolbox stops a batch when its last frame is done. Each step costs (classes − 1) backward passes for every frame. Most
# frames need three steps. The few others run again, alone, with the same result as in one long run.
_ROUNDS = (3, 6, 50)
_CANDIDATES = 10
_OVERSHOOT = 0.02


@dataclass(frozen=True)
class DeepFool:
    """DeepFool over the 10 most likely classes, at most 50 steps, overshoot .02, as in the paper's experiments."""

    eps: float | None = None
    name: str = "deepfool"

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`. Raises ConfigError with targets."""
        if targets is not None:
            raise ConfigError("attack deepfool: expected an untargeted run (it has no targeted form), got targets")
        require_gradients(logits, frames)
        network = model(logits, frames.device)
        adversarial = frames.clone()
        left = torch.arange(len(frames), device=frames.device)
        for steps in _ROUNDS:
            attack = L2DeepFoolAttack(steps=steps, candidates=_CANDIDATES, overshoot=_OVERSHOOT)
            failed = []
            for part, part_labels, _ in in_batches(frames[left], labels[left], None):
                run = left[: len(part)]
                left = left[len(part) :]
                adversarial[run] = attack.run(network, part, criterion(part_labels, None))
                with torch.no_grad():
                    failed.append(run[margins(logits(adversarial[run]), part_labels, None) <= 0])
            left = torch.cat(failed) if failed else left
        return adversarial if self.eps is None else into_l2_ball(adversarial, frames, self.eps)
