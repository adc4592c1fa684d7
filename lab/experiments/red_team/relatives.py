"""Foolbox's own attacks through its public interface, with the steps of the lab's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from lab.attacks.carlini_wagner import NEAR
from lab.attacks.contract import Logits
from lab.attacks.foolbox_model import HopSkipJumpAttack, L2CarliniWagnerAttack, L2DeepFoolAttack, criterion, model

# Import after `foolbox_model`, which silences foolbox's output on import.
from foolbox.attacks.base import Attack  # isort: skip
from foolbox.attacks.basic_iterative_method import LinfBasicIterativeAttack  # isort: skip
from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack  # isort: skip
from foolbox.attacks.mi_fgsm import LinfMomentumIterativeFastGradientMethod  # isort: skip
from foolbox.attacks.projected_gradient_descent import (  # isort: skip
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.attacks.spatial_attack import SpatialAttack  # isort: skip

WALK: Final = (2, 20)
"""Steps of HopSkipJump, and queries for its first direction: enough for a comparison, too few for convergence."""

MAKE: Final[dict[str, Callable[[], Attack]]] = {
    "fgsm": LinfFastGradientAttack,
    "ifgsm": lambda: LinfBasicIterativeAttack(rel_stepsize=0.2, steps=10),
    "pgd": lambda: LinfProjectedGradientDescentAttack(rel_stepsize=0.25, steps=10),
    "l2pgd": lambda: L2ProjectedGradientDescentAttack(rel_stepsize=0.125, steps=20),
    "mi-fgsm": lambda: LinfMomentumIterativeFastGradientMethod(momentum=1.0, rel_stepsize=0.25, steps=10),
    "rotation": lambda: SpatialAttack(max_translation=0, max_rotation=15, num_translations=1, num_rotations=13),
    "deepfool": lambda: L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02),
    "cw": lambda: L2CarliniWagnerAttack(
        binary_search_steps=NEAR.searches, steps=NEAR.steps, stepsize=NEAR.step, initial_const=NEAR.first_constant
    ),
    "hopskipjump": lambda: HopSkipJumpAttack(steps=WALK[0], initial_gradient_eval_steps=WALK[1]),
}
"""The attacks by name. `called` receives the bound."""


def called(
    name: str, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, eps: float | None
) -> Tensor:
    """Return adversarial frames (B, C, H, W) by an attack of foolbox with its bound `eps`, or without one."""
    attack, network = MAKE[name](), model(logits, frames.device)
    if isinstance(attack, SpatialAttack):  # takes no other bound
        found = attack.run(network, frames, criterion(labels, targets))
    elif isinstance(attack, HopSkipJumpAttack):  # its own search for a start gives up if noise changes nothing
        others = (labels != labels[:, None]).int().argmax(1)
        found = attack.run(network, frames, criterion(labels, targets), starting_points=frames[others])
    else:
        found, _, _ = attack(network, frames, criterion(labels, targets), epsilons=eps)
    assert isinstance(found, torch.Tensor)
    return found
