"""Fine-pruning (Liu et al. 2018, section 4): channels inactive on clean pictures are pruned, then fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.repair.inputs import trainable_copy
from lab.repair.tuning import CPU, Tuning, tune, with_network
from processors.bundle import Bundle
from schemas.errors import ConfigError

LARGEST_LOSS = 0.04
"""Loss of clean accuracy at which the paper stops pruning."""


def last_convolution(network: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d | None]:
    """Return the last convolution, and the batch norm after it if one has its channels.

    Raises ConfigError without a convolution.
    """
    modules = list(network.modules())
    places = [place for place, module in enumerate(modules) if isinstance(module, nn.Conv2d)]
    if not places:
        raise ConfigError("fine-pruning: expected a network with a convolution, found none")
    convolution = modules[places[-1]]
    assert isinstance(convolution, nn.Conv2d)
    for module in modules[places[-1] + 1 :]:
        if isinstance(module, nn.BatchNorm2d) and module.num_features == convolution.out_channels:
            return convolution, module
    return convolution, None


def fine_pruned(sick: Bundle, clean: LabelledPictures, tuning: Tuning) -> Bundle:
    """Prune the last convolution, least active channels first, while `clean` stays correct. Then tune the rest."""
    network = trainable_copy(sick)
    pruned = with_network(sick, network)
    frames, labels = to_frames(clean.images, CPU), torch.from_numpy(clean.labels)
    convolution, norm = last_convolution(network)
    order = _activity(pruned, norm or convolution, frames).argsort()

    def accuracy() -> float:
        with torch.inference_mode():
            return float((pruned.logits(frames).argmax(1) == labels).float().mean())

    lowest = accuracy() - LARGEST_LOSS
    cut: list[int] = []
    for channel in order.tolist()[:-1]:
        kept = [weight.detach().clone() for weight in _weights(convolution, norm)]
        _silence(convolution, norm, [channel])
        if accuracy() < lowest:
            with torch.no_grad():
                for weight, before in zip(_weights(convolution, norm), kept, strict=True):
                    weight.copy_(before)
            break
        cut.append(channel)
    healed = trainable_copy(pruned)
    place = last_convolution(healed)
    # `tune` works on a separate copy: the channels are pruned in that copy, after each step.
    return tune(sick, clean, tuning, network=_Pruned(healed, place, cut))


class _Pruned(nn.Module):
    """A network whose pruned channels stay silent during training."""

    def __init__(self, network: nn.Module, place: tuple[nn.Conv2d, nn.BatchNorm2d | None], cut: list[int]) -> None:
        super().__init__()
        self.network = network
        self._cut = cut
        (place[1] or place[0]).register_forward_hook(self._silent)

    def _silent(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        alive = torch.ones(output.shape[1])
        alive[self._cut] = 0
        return output * alive[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of frames (B, C, H, W) without the pruned channels."""
        logits: Tensor = self.network(x)
        return logits


def _weights(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> list[Tensor]:
    chosen: list[Tensor | None] = [convolution.weight, convolution.bias]
    if norm is not None:
        chosen = [norm.weight, norm.bias]
    return [weight for weight in chosen if weight is not None]


def _silence(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, channels: list[int]) -> None:
    with torch.no_grad():
        for weight in _weights(convolution, norm):
            weight[channels] = 0


@torch.inference_mode()
def _activity(bundle: Bundle, module: nn.Module, frames: Tensor) -> Tensor:
    """Return the mean activation (channels,) of a convolution's output after the rectifier, over the clean pictures."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: seen.append(output.relu().mean((0, 2, 3))))
    bundle.logits(frames)
    hook.remove()
    return seen[0]
