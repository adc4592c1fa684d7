"""The adapter to foolbox: a callable as its model, labels or targets as its criterion.

Each attack's public `run` is called for foolbox's iterations. Its `__call__` would add a forward pass for a success
figure that is not needed here. Random starts are drawn from the caller's generator instead of torch's global state.
"""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor, nn

from lab.attacks.contract import Logits

# Foolbox imports GitPython for its model zoo. GitPython fails to load if git is not installed.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Please import `gaussian_filter`", category=DeprecationWarning)
    from eagerpy.tensor.pytorch import PyTorchTensor
    from eagerpy.tensor.tensor import Tensor as EagerTensor
    from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
    from foolbox.attacks.deepfool import L2DeepFoolAttack
    from foolbox.attacks.gradient_descent_base import L2BaseGradientDescent, LinfBaseGradientDescent
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

__all__ = [
    "EagerTensor",
    "HopSkipJumpAttack",
    "L2BaseGradientDescent",
    "L2CarliniWagnerAttack",
    "L2DeepFoolAttack",
    "LinfBaseGradientDescent",
    "PyTorchTensor",
    "criterion",
    "model",
]


class _Network(nn.Module):
    def __init__(self, logits: Logits) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, frames: Tensor) -> Tensor:
        return self.logits(frames)


def model(logits: Logits, device: torch.device) -> PyTorchModel:
    """Return `logits` as foolbox's model of frames in [0, 1]."""
    return PyTorchModel(_Network(logits).eval(), bounds=(0, 1), device=device)


def criterion(labels: Tensor, targets: Tensor | None) -> Misclassification | TargetedMisclassification:
    """Return the criterion of success: the target class, or without targets any class but the label."""
    return Misclassification(labels) if targets is None else TargetedMisclassification(targets)
