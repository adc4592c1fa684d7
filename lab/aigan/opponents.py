"""What a generator is trained through: the target network itself, or a local one that learns what it answers.

Bai et al. (2023), sections V-C and V-D. In the black-box setting the attacker may ask the target and reads its answers;
the local network is distilled from them again after every step of the generator, on what the generator now makes
(dynamic distillation, Xiao et al. 2018), and gradients are the local network's alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lab.aigan.losses import distillation_loss
from lab.attacks.contract import Logits
from processors.bundle import Bundle

Answers = Callable[[Tensor], Tensor]
"""Frames (B, C, H, W) in [0, 1] to log-shares (B, classes): what a target says, without a graph."""


class Opponent(Protocol):
    """Answers the generator with gradients, and learns when there is something to learn."""

    def logits(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) in [0, 1] to logits (B, classes), with gradients."""
        ...

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """After a step of the generator, from what it was given and what it made of it, at a share of the full rate."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class WhiteBox:
    """The target itself, whose weights the attacker has."""

    def __init__(self, target: Logits) -> None:
        self.logits = target

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """Nothing: a target does not change."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""


class Distilled:
    """A local network, trained on a target's answers."""

    def __init__(self, answers: Answers, local: nn.Module, rate: float = 1e-3) -> None:
        self._answers, self._local, self._rate = answers, local, rate
        self._optimiser = torch.optim.Adam(local.parameters(), rate)
        self.asked = 0
        """Pictures that the target was asked about."""

    def logits(self, frames: Tensor) -> Tensor:
        """See `Opponent`: in evaluation mode, and its weights get no gradient."""
        self._local.eval().requires_grad_(False)
        found: Tensor = self._local(frames)
        return found

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """One step towards the target's answers, to half of the clean pictures and to all perturbed ones."""
        frames = torch.cat((clean[: len(clean) // 2], perturbed)).detach()
        self.asked += len(frames)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * rate
        self._local.train().requires_grad_(True)
        loss = distillation_loss(self._local(frames), self._answers(frames))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self._optimiser.step()

    def state(self) -> dict[str, Any]:
        """See `Opponent`."""
        return {"local": self._local.state_dict(), "optimiser": self._optimiser.state_dict(), "asked": self.asked}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Opponent`."""
        self._local.load_state_dict(state["local"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.asked = state["asked"]


def answers_of(target: Logits) -> Answers:
    """What an outsider gets of a target: shares, whose logarithm is taken here, and no gradient."""

    def answers(frames: Tensor) -> Tensor:
        with torch.no_grad():
            return target(frames.detach()).log_softmax(1)

    return answers


def differentiable(bundle: Bundle) -> Logits:
    """The bare network of a bundle, on frames of its own size; normalisations that can be are folded into convolutions.

    That makes a step through a ResNet-20 1.4 times as fast. What cannot be traced runs as it is.
    """
    network = bundle.network
    if isinstance(network, nn.Module):
        try:
            network = folded(symbolic_trace(copy.deepcopy(network).eval()))
        except (TraceError, TypeError):
            network = copy.deepcopy(network)
        network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs

    def logits(frames: Tensor) -> Tensor:
        found: Tensor = network((frames - bundle.mean) / bundle.std)
        return found.log() if bundle.settings.output == "probabilities" else found

    return logits


def folded(network: GraphModule) -> GraphModule:
    """`network`, in evaluation mode, with each normalisation that alone follows a convolution folded into it."""
    for node in list(network.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = (network.get_submodule(str(each.target)) for each in (before, node))
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            network.graph.erase_node(node)
    network.recompile()
    return network
