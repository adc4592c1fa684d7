"""Scaled batch norms: a label that an attacker planted holds while the network's last batch norms are amplified.

IBD-PSC (Hou, Feng, Hua, Luo, Zhang, Li: ICML 2024) amplifies the weights and biases of the last k batch norms of the
network, and judges a picture by the mean probability of its label in five such networks. A trigger keeps its label, and
clean pictures lose it. The paper's probabilities saturate at 1, which hides the difference at few false alarms.
Therefore the log-odds of the label are averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

SCALE: Final = 1.5
NETWORKS: Final = 5
"""Amplified networks: the last k, k + 1, … batch norms."""
_OCTAVES: Final = 16.0
"""Octaves of the odds for each octave of the doubt: amplified networks are so certain that many odds exceed 2^100."""
_MOST: Final = 1000.0
"""Upper bound of the octaves of a doubt, and their lower bound below 0: beyond, float64 holds infinity or 0."""

Forward = Callable[[Tensor], Tensor]
"""A network as a function from normalised pictures (B, C, H, W) to its output (B, classes)."""


def batch_norms(network: object) -> list[str]:
    """Return the names of the batch norms of a network in the order of its definition; none if it is not a module."""
    named = network.named_modules() if isinstance(network, nn.Module) else ()
    return [name for name, each in named if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.affine]


def amplified(network: nn.Module, count: int) -> Forward:
    """Return `network` with the weights and biases of the last `count` batch norms times `SCALE`; it stays as it is."""
    changed = {
        place: SCALE * value.detach()
        for name in batch_norms(network)[-count:]
        for place, value in network.get_submodule(name).named_parameters(name, recurse=False)
    }

    def forward(pictures: Tensor) -> Tensor:
        output: Tensor = functional_call(network, changed, (pictures,))
        return output

    return forward


@dataclass(frozen=True)
class ScaledNorms:
    """A network, and its amplified `forms`.

    A form replaces the network's parameters while it runs: one thread at a time may use them and the network.
    """

    network: nn.Module
    forms: tuple[Forward, ...]

    @classmethod
    def of(cls, network: nn.Module, depth: int) -> ScaledNorms:
        """Return `NETWORKS` amplified forms, the first with the last `depth` batch norms, each other with one more.

        Those that have all batch norms are alike.
        """
        every = len(batch_norms(network))
        return cls(network, tuple(amplified(network, min(every, depth + more)) for more in range(NETWORKS)))


def label_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the odds (B,) of `labels` (B,) in logits (B, classes), in octaves: log₂(p / (1 − p)), without overflow."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return (own[:, 0] - others) / math.log(2)


def doubt(odds: Tensor) -> Tensor:
    """Return the doubt (n,) in labels with these mean log-odds (n,) in octaves: positive, and low for certain ones."""
    return torch.exp2((-odds.double() / _OCTAVES).clamp(-_MOST, _MOST))
