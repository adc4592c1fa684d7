"""The check that a network classifies each picture of a batch independently of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from infra.bundling.batches import example_pictures, judges_singly

Network = Callable[[Tensor], Tensor]


def one_by_one(network: Network) -> Network:
    return lambda pictures: torch.cat([network(each[None]) for each in pictures])


def quantised_by_batch(pictures: Tensor) -> Tensor:
    """Quantise the input by the range of the batch, as a network that mixes pictures."""
    return (pictures / pictures.amax() * 255).round().mean((2, 3))


def standardised_by_batch(pictures: Tensor) -> Tensor:
    """Standardise the input by the batch, as a network that mixes pictures."""
    return ((pictures - pictures.mean()) / pictures.std()).mean((2, 3))


def standardised_on_bytes(pictures: Tensor) -> Tensor:
    """Standardise pictures on the scale 0 to 255, to which pictures up to 1 are black."""
    return standardised_by_batch(pictures.clamp_min(2))


@pytest.mark.parametrize("network", [quantised_by_batch, standardised_by_batch, standardised_on_bytes])
def test_a_network_that_mixes_the_pictures_of_a_batch_is_found(network: Network) -> None:
    assert not judges_singly(network, one_by_one(network), example_pictures(3, 64, 64))


def test_a_deep_network_passes() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(width, 32, 3, padding=1), nn.ReLU()) for width in [3, *[32] * 30]]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    with torch.inference_mode():
        assert judges_singly(network, one_by_one(network), example_pictures(3, 32, 32))


def test_another_number_of_results_counts_as_a_difference() -> None:
    assert not judges_singly(
        lambda pictures: pictures.new_ones(1, 3), lambda pictures: pictures.new_ones(3, 3), example_pictures(3, 8, 8)
    )
