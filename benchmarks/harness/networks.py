"""Networks of 224×224 inputs, typical of users' models: those of `lab.networks.imagenet` with random weights."""

from __future__ import annotations

import torch
from torch import nn

from lab.networks import imagenet


def resnet18() -> nn.Module:
    """Return `imagenet.resnet18` with random weights."""
    return _random(imagenet.resnet18())


def mobilenet_v3_small() -> nn.Module:
    """Return `imagenet.mobilenet_v3_small` with random weights."""
    return _random(imagenet.mobilenet_v3_small())


def _random(network: nn.Module) -> nn.Module:
    """Set weights of a fixed seed under which activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # missing from stubs
