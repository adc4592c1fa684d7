"""BPDA: forward through a defence, backward through a differentiable substitute (Athalye et al. 2018, section 4.1).

Three backward passes are usual: the identity, a differentiable stand-in from the caller, and a learned network
(`lab.attacks.surrogate`). With fresh draws at every step of `eot_pgd` this is BPDA + EOT.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lab.baselines import Baseline
from schemas.errors import ConfigError


def identity(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return the frames: the simplest backward pass passes the gradient through unchanged."""
    return frames


def bpda(forward: Baseline, backward: Baseline = identity) -> Baseline:
    """Return a defence with the values of `forward` and the gradient of `backward` at the same frames.

    `backward` receives a generator in the state in which `forward` began, so that a stand-in can repeat its draws.
    Raises ConfigError if the two return different shapes.
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
