"""The test whether a network judges each picture of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from infra.bundling.batches import example_pictures, judges_singly

Network = Callable[[Tensor], Tensor]


def one_by_one(network: Network) -> Network:
    return lambda pictures: torch.cat([network(each[None]) for each in pictures])


def by_its_range(pictures: Tensor) -> Tensor:
    """A network that quantises its input by the range of the batch."""
    return (pictures / pictures.amax() * 255).round().mean((2, 3))


def by_its_mean(pictures: Tensor) -> Tensor:
    """A network that standardises its input by the batch."""
    return ((pictures - pictures.mean()) / pictures.std()).mean((2, 3))


def of_0_to_255(pictures: Tensor) -> Tensor:
    """The same for pictures up to 255; those up to 1 are black to it."""
    return by_its_mean(pictures.clamp_min(2))


@pytest.mark.parametrize("network", [by_its_range, by_its_mean, of_0_to_255])
def test_a_network_in_which_pictures_change_each_other_is_found(network: Network) -> None:
    assert not judges_singly(network, one_by_one(network), example_pictures(3, 64, 64))


def test_a_deep_network_passes() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(width, 32, 3, padding=1), nn.ReLU()) for width in [3, *[32] * 30]]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    with torch.inference_mode():
        assert judges_singly(network, one_by_one(network), example_pictures(3, 32, 32))


def test_another_number_of_results_is_another_result() -> None:
    assert not judges_singly(
        lambda pictures: pictures.new_ones(1, 3), lambda pictures: pictures.new_ones(3, 3), example_pictures(3, 8, 8)
    )
