"""Scaled batch norms: a label that an attacker planted holds while the network's last batch norms are amplified.

IBD-PSC (Hou, Feng, Hua, Luo, Zhang, Li: ICML 2024) amplifies the weights and biases of the last k batch norms of the
network, and judges a picture by the mean probability of its label in five such networks. A trigger keeps its label, and
clean pictures lose it. The paper's probabilities saturate at 1, which hides the difference at few false alarms.
Therefore the log-odds of the label are averaged here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lab.data import LabelledPictures
from lab.strip.calibrate import whole_input
from processors.bundle import Bundle
from processors.pipeline import Pipeline

SCALE: Final = 1.5
NETWORKS: Final = 5
"""Amplified networks: the last k, k + 1, … batch norms."""
ERRED: Final = 0.6
"""Share of wrong labels on clean pictures at which a network is amplified enough, as in the paper."""
_SHIFT: Final = 64.0
"""Octaves that keep the statistic of certain labels above the bounds of a threshold's fit."""


def batch_norms(network: object) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of a network in the order of its definition; none if it is not a module."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    return [each for each in modules if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.affine]


def amplified(bundle: Bundle, count: int) -> Bundle:
    """Return the bundle with the weights and biases of the last `count` batch norms times `SCALE`."""
    network = copy.deepcopy(bundle.network)
    with torch.no_grad():
        for norm in batch_norms(network)[-count:]:
            norm.weight.mul_(SCALE)
            norm.bias.mul_(SCALE)
    return replace(bundle, network=network)


@torch.inference_mode()
def depth(bundle: Bundle, clean: LabelledPictures) -> int | None:
    """Return the fewest batch norms whose amplification spoils a share `ERRED` of clean labels; None without any.

    If no number spoils so many, all batch norms are amplified.
    """
    every = len(batch_norms(bundle.network))
    for count in range(1, every + 1):
        network = amplified(bundle, count)
        wrong = sum(
            int((network.logits(network.prepare(frames)).argmax(1) != labels).sum())
            for frames, labels in clean.batches(bundle.device)
        )
        if wrong >= ERRED * len(clean):
            return count
    return every or None


def label_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the odds (B,) of `labels` (B,) in logits (B, classes), in octaves: log₂(p / (1 − p)), without overflow."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return (own[:, 0] - others) / math.log(2)


def doubt(odds: Tensor) -> Tensor:
    """Return the doubt (n,) in labels with these mean log-odds (n,) in octaves: positive, and low for certain ones."""
    return torch.exp2(_SHIFT - odds)


@torch.inference_mode()
def doubts(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    count: int,
    advance: Callable[[int], object] = lambda count: None,
) -> NDArray[np.float64]:
    """Return the doubt (n,) in the labels of whole pictures: positive, and low for a label that amplification keeps.

    It is `doubt` of the mean log-odds of the label in `NETWORKS` networks, the first with the last `count` batch norms
    amplified.
    """
    bundle = pipeline.bundle
    every = len(batch_norms(bundle.network))
    networks = [amplified(bundle, min(every, count + more)) for more in range(NETWORKS)]
    found = []
    for frames, _ in pictures.batches(bundle.device):
        inputs = whole_input(pipeline, frames)
        labels = bundle.logits(inputs).argmax(1)
        odds = torch.stack([label_odds(each.logits(inputs).double(), labels) for each in networks]).mean(0)
        found.append(doubt(odds))
        advance(len(frames))
    return torch.cat(found).cpu().numpy()
