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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from processors.stages.layer_disagreement import Discriminant, layer_doubt
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


class FeatureValues(NamedTuple):
    """The statistics of frames by their features: the typicality (B,), and the doubt (B,) of earlier layers.

    The doubt is None without discriminants.
    """

    typicality: Tensor
    layer_doubt: Tensor | None


@dataclass(frozen=True)
class CleanFeatures:
    """The features of clean frames: those of `layers` of `network`, side by side, D in all.

    `means` (classes, D) are those of each label, and `known` (classes,) bool is True where clean frames had that label.
    `whitening` (D, K) maps differences to K numbers whose length is the distance. The logarithms of the distances of
    clean frames have the mean `log_mean` and the deviation `log_spread`. `discriminants` are of earlier layers.
    """

    network: nn.Module
    layers: tuple[str, ...]
    means: Tensor
    known: Tensor
    whitening: Tensor
    log_mean: float
    log_spread: float
    discriminants: tuple[Discriminant, ...] = ()

    def values(self, pictures: Tensor) -> FeatureValues:
        """Return the statistics of normalised pictures (B, C, H, W) by one pass of the network.

        The typicality (see `tail`) is 1 for a label without means. The doubt is that of `layer_doubt`.
        """
        earlier = [each.layer for each in self.discriminants]
        with watched(self.network, (*self.layers, *earlier)) as found:
            labels = self.network(pictures).argmax(1)
        features = torch.cat([found[name] for name in self.layers], 1)
        lengths = distances(features, labels, self.means, self.whitening)
        typicality = torch.where(self.known[labels], tail(lengths, self.log_mean, self.log_spread), 1.0)
        seen = [found[name] for name in earlier]
        doubt = layer_doubt(seen, labels, self.known, self.discriminants) if seen else None
        return FeatureValues(typicality, doubt)


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
