"""The networks that give a generator its gradients: the target itself, or a local network distilled from its answers.

Bai et al. (2023), sections V-C and V-D. In the black-box setting the attacker may query the target and reads its
answers. After every step of the generator, the local network is distilled again on the generator's current output
(dynamic distillation, Xiao et al. 2018). Gradients come from the local network alone.
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
"""A function from frames (B, C, H, W) in [0, 1] to the target's log-shares (B, classes), without a graph."""


class Opponent(Protocol):
    """A network that gives the generator gradients, and may itself be trained."""

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits (B, classes) of frames (B, C, H, W) in [0, 1], with gradients."""
        ...

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """Train on the generator's input and output after its step, at the share `rate` of the full learning rate."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        ...


class WhiteBox:
    """The target itself: the attacker has its weights."""

    def __init__(self, target: Logits) -> None:
        self.logits = target

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """Do nothing: a target does not change."""

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class Distilled:
    """A local network, trained on a target's answers."""

    def __init__(self, answers: Answers, local: nn.Module, rate: float = 1e-3) -> None:
        self._answers, self._local, self._rate = answers, local, rate
        self._optimiser = torch.optim.Adam(local.parameters(), rate)
        self.asked = 0
        """The number of pictures for which the target was queried."""

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits. See `Opponent`. The network runs in evaluation mode, and its weights get no gradient."""
        self._local.eval().requires_grad_(False)
        found: Tensor = self._local(frames)
        return found

    def learn(self, clean: Tensor, perturbed: Tensor, rate: float) -> None:
        """Take one step towards the target's answers on half of the clean pictures and on all perturbed ones."""
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
        """Return the state. See `Opponent`."""
        return {"local": self._local.state_dict(), "optimiser": self._optimiser.state_dict(), "asked": self.asked}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state. See `Opponent`."""
        self._local.load_state_dict(state["local"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.asked = state["asked"]


def answers_of(target: Logits) -> Answers:
    """Return an outsider's view of a target: shares, whose logarithm is computed here, and no gradient."""

    def answers(frames: Tensor) -> Tensor:
        with torch.no_grad():
            return target(frames.detach()).log_softmax(1)

    return answers


def differentiable(bundle: Bundle) -> Logits:
    """Return the bare network of a bundle, on frames of its own size, with normalisations folded into convolutions.

    Folding makes a step through a ResNet-20 1.4 times as fast. A network that cannot be traced runs unchanged.
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
    """Fold each normalisation that is a convolution's only successor into that convolution; return `network`.

    The network is in evaluation mode.
    """
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
