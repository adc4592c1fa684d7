"""Fused convolutions, compared with separate operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from processors.networks import onednn
from processors.networks.onednn import convolve_add, convolve_relu
from processors.networks.restorer import Restorer


def test_a_fused_convolution_agrees_with_separate_operations() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    x = torch.randn(3, 16, 9, 11).to(memory_format=torch.channels_last)
    torch.testing.assert_close(convolve_relu(convolution, x), convolution(x).relu())
    before = x.clone()
    torch.testing.assert_close(convolve_add(convolution, x.relu(), x), x + convolution(x.relu()))
    assert torch.equal(x, before)


@pytest.mark.parametrize("trained", ["input", "weights"])
def test_gradients_flow_to_the_input_and_to_the_weights(trained: str) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(trained == "weights")
    x = torch.randn(1, 4, 5, 5, requires_grad=trained == "input")
    convolve_add(convolution, convolve_relu(convolution, x), x).sum().backward()  # type: ignore[no-untyped-call]  # no annotations
    assert (x if trained == "input" else convolution.weight).grad is not None


@pytest.mark.skipif(not onednn._have_kernels(), reason="needs an x86 processor")
def test_the_restorer_gives_the_same_fused_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Restorer((16, 16, 32)).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    frames, kept = torch.rand(2, 3, 16, 24), torch.rand(2, 1, 16, 24) > 0.25
    fused = network(frames, kept)
    monkeypatch.setattr(onednn, "_fusible", lambda *_: False)
    plain = network(frames, kept)
    assert (plain - frames).abs().max() > 1e-3
    torch.testing.assert_close(fused, plain, atol=1e-6, rtol=0)
