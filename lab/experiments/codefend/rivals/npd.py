"""NPD (Zhu et al. 2023, "Neural polarizer: a lightweight and effective backdoor defense").

A linear layer is inserted into the network, whose own weights stay. It learns to filter what perturbations of the
pictures, which stand for triggers, change in the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.experiments.codefend.rivals.fine_pruning import last_convolution
from lab.repair.inputs import trainable_copy
from lab.repair.tuning import CPU, with_network
from processors.bundle import Bundle


@dataclass(frozen=True)
class Polarizing:
    """The settings of the paper's code, except for fewer and smaller batches."""

    epochs: int = 20
    batch: int = 50
    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    norm: float = 3.0
    """Largest L2 norm of a frame's perturbation."""
    attack_steps: int = 2
    attack_rate: float = 0.1
    weight: float = 0.4
    """Weight of each loss on perturbed frames; that of clean frames has 1."""
    seed: int = 0


class Polarized(nn.Module):
    """A network with a layer (1×1 convolution, batch norm) in front of the block of its last convolution.

    `frames` (B, C, H, W) are normalised ones. The layer starts as the identity: its batch norm has their statistics.
    """

    def __init__(self, network: nn.Module, frames: Tensor) -> None:
        super().__init__()
        self.network = network
        last = last_convolution(network)[0]
        parents = [
            module for module in network.modules()
            if any(child is last for child in module.children()) and not isinstance(module, nn.Sequential)
        ]  # fmt: skip
        place = parents[0] if parents and parents[0] is not network else last
        seen: list[Tensor] = []
        hook = place.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            network(frames)
        hook.remove()
        channels = seen[0].shape[1]
        self.convolution = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels).eval()
        with torch.no_grad():
            nn.init.dirac_(self.convolution.weight)
            variance, mean = torch.var_mean(seen[0], (0, 2, 3))
            for tensor, value in (
                (self.norm.running_mean, mean), (self.norm.running_var, variance),
                (self.norm.weight, (variance + self.norm.eps).sqrt()), (self.norm.bias, mean),
            ):  # fmt: skip
                assert tensor is not None
                tensor.copy_(value)
        place.register_forward_pre_hook(self._polarize)

    def _polarize(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        filtered: Tensor = self.norm(self.convolution(inputs[0]))
        return filtered

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of normalised frames (B, C, H, W)."""
        logits: Tensor = self.network(x)
        return logits


def polarized(sick: Bundle, clean: LabelledPictures, settings: Polarizing) -> Bundle:
    """Return `sick` with a layer that is trained on `clean` and on perturbed versions of it (algorithm 1).

    Each frame is perturbed towards its second class. The layer then learns four losses: the labels of clean frames,
    the sick verdicts on perturbed ones, and against two classes there: the second class (targeted), and the likeliest
    wrong one (untargeted).
    """
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)
    network = Polarized(trainable_copy(sick).requires_grad_(False), sick.normalised(sick.preprocess(frames)))
    bundle = with_network(sick, network.eval())
    weights = [*network.convolution.parameters(), *network.norm.parameters()]
    optimiser = torch.optim.SGD(
        weights, lr=settings.rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * -(-len(labels) // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        for index in torch.split(torch.randperm(len(labels), generator=generator), settings.batch):
            batch, wanted = frames[index], labels[index]
            with torch.no_grad():
                first = bundle.logits(batch)
                called = first.argmax(1)
                second = _without(first, wanted).argmax(1)
            marked = perturbed(bundle, batch, second, settings)
            found = bundle.logits(torch.cat((batch, marked)))
            plain, attacked = found[: len(index)], found[len(index) :]
            wrong = _without(attacked.detach(), wanted).argmax(1)
            against = _unlikely(attacked, wrong) + _unlikely(attacked, second)
            loss = F.cross_entropy(plain, wanted) + settings.weight * (F.cross_entropy(attacked, called) + against)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            schedule.step()
    network.requires_grad_(False)
    return bundle


def perturbed(bundle: Bundle, frames: Tensor, aims: Tensor, settings: Polarizing) -> Tensor:
    """Return frames (B, C, H, W) in [0, 1] after signed steps towards the classes `aims` (B,), within an L2 ball."""
    change = torch.zeros_like(frames, requires_grad=True)
    for _ in range(settings.attack_steps):
        loss = F.cross_entropy(bundle.logits((frames + change).clamp(0, 1)), aims)
        (slope,) = torch.autograd.grad(loss, change)
        with torch.no_grad():
            change -= settings.attack_rate * slope.sign()
            length = change.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            change *= (settings.norm / length).clamp_max(1)
    return (frames + change.detach()).clamp(0, 1)


def _without(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.scatter(1, classes[:, None], -torch.inf)


def _unlikely(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the loss of giving frames these classes (B,): −log(1 − p), with the constants of the paper's code."""
    given = logits.softmax(1).gather(1, classes[:, None])
    return -(1.0001 - given).log().mean()
