"""BPDA: forward through a defence, backward through something that has a gradient (Athalye et al. 2018, section 4.1).

Three backward passes are usual: the identity, a differentiable stand-in that the caller gives, and one that is learned
(`lab.attacks.surrogate`). With fresh draws at every step of `eot_pgd` this is BPDA + EOT.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lab.baselines import Baseline
from schemas.errors import ConfigError


def identity(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The plainest backward pass: the gradient behind the defence is taken for that before it."""
    return frames


def bpda(forward: Baseline, backward: Baseline = identity) -> Baseline:
    """The values of `forward`, the gradient of `backward` at the same frames.

    `backward` gets a generator in the state that `forward` began with, so that a stand-in can make the same draws.
    Raises ConfigError when the two give different shapes.
    """

    def approximated(frames: Tensor, generator: torch.Generator) -> Tensor:
        same_draws = torch.Generator(generator.device).set_state(generator.get_state())
        with torch.no_grad():
            exact = forward(frames.detach(), generator)
        smooth = backward(frames, same_draws)
        if smooth.shape != exact.shape:
            raise ConfigError(
                f"bpda: expected a backward pass of the defence's shape {tuple(exact.shape)}, got {tuple(smooth.shape)}"
            )
        return exact + (smooth - smooth.detach())

    return approximated
