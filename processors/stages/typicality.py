"""Typicality: do the features of a frame look like those of clean frames with the same label?

A trigger replaces the features that usually lead to a label by others. The statistic is the Mahalanobis distance of a
frame's features from those of clean frames with its label (Lee et al. 2018, "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks"), with one covariance for all labels. STRIP finds triggers that
survive everything and drop disagreement those that survive little; this statistic also finds those in between, such as
a trigger that only some classes obey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemas.errors import StageError


@contextmanager
def watched(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that holds, after each call of `network`, the channel means (B, C) of its named `layers`.

    Raises StageError for a name that the network lacks.
    """
    modules, found = dict(network.named_modules()), dict[str, Tensor]()

    def keep(name: str, output: Tensor) -> None:
        found[name] = channel_means(output)

    if missing := [name for name in layers if name not in modules]:
        raise StageError(f"features: expected a layer {missing[0]} in the network, found none")
    hooks = [
        modules[name].register_forward_hook(lambda _, inputs, output, name=name: keep(name, output)) for name in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def channel_means(output: Tensor) -> Tensor:
    """Return the means (B, C) of maps (B, C, H, W), of tokens (B, T, C), or of (B, C) as it is; float32.

    Raises StageError for any other shape.
    """
    match output.ndim:
        case 4:
            return output.float().mean((2, 3))
        case 3:
            return output.float().mean(1)
        case 2:
            return output.float()
    raise StageError(f"features: expected (B, C, H, W), (B, T, C) or (B, C), got {tuple(output.shape)}")


@dataclass(frozen=True)
class CleanFeatures:
    """The features of clean frames: those of `layers` of `network`, side by side, D in all.

    `means` (classes, D) are those of each label, and `known` (classes,) bool is True where clean frames had that label.
    `whitening` (D, K) maps differences to K numbers whose length is the distance. The logarithms of the distances of
    clean frames have the mean `log_mean` and the deviation `log_spread`.
    """

    network: nn.Module
    layers: tuple[str, ...]
    means: Tensor
    known: Tensor
    whitening: Tensor
    log_mean: float
    log_spread: float

    def typicality(self, pictures: Tensor) -> Tensor:
        """Return the typicality (B,) of normalised pictures (B, C, H, W), see `tail`; 1 for a label without means."""
        with watched(self.network, self.layers) as found:
            labels = self.network(pictures).argmax(1)
            features = torch.cat([found[name] for name in self.layers], 1)
        lengths = distances(features, labels, self.means, self.whitening)
        return torch.where(self.known[labels], tail(lengths, self.log_mean, self.log_spread), 1.0)


def distances(features: Tensor, labels: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """Return the distances (B,) of features (B, D) from the `means` (classes, D) of their `labels` (B,)."""
    return ((features - means[labels]) @ whitening).square().sum(1).sqrt()


def tail(lengths: Tensor, log_mean: float, log_spread: float) -> Tensor:
    """Return the estimated share (B,) of clean frames that lie farther than these distances (B,); low for a trigger.

    The logarithm of a clean distance is taken as normally distributed.
    """
    deviations = (lengths.double().clamp_min(torch.finfo(torch.float32).tiny).log() - log_mean) / log_spread
    share: Tensor = torch.special.erfc(deviations / math.sqrt(2)) / 2
    return share.float()
