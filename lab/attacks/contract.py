"""What an attack is, and what all of them share: targets, 8-bit rounding, the ask for gradients, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from schemas.errors import BundleError, ConfigError

Logits = Callable[[Tensor], Tensor]
"""Frames (B, C, H, W) in [0, 1] to logits (B, classes): any normalisation happens inside."""

# What bounds the memory, however many frames come: the backward pass of a small network takes about 1 GB.
BATCH = 256


class Attack(Protocol):
    """Changes frames a little so that a network errs, knowing the network and nothing of any defence."""

    @property
    def name(self) -> str:
        """One of `NAMES`."""
        ...

    @property
    def eps(self) -> float | None:
        """The bound: L∞ or L2 on frames in [0, 1], for rotations degrees; None where the attack minimises freely."""
        ...

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Adversarial frames (B, C, H, W) in [0, 1], not rounded to 8 bits, for frames of the same shape.

        `labels` (B,) are the correct classes; with `targets` (B,) the network shall answer those, with None anything
        but the labels. A frame whose attack fails comes back as near as it got. All randomness is drawn from
        `generator`. Raises BundleError when the attack needs gradients that `logits` does not give.
        """
        ...


def random_targets(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """For each of `labels` (B,) another class, uniformly among the `classes` − 1 others."""
    if classes < 2:
        raise ConfigError(f"classes: expected at least 2 to choose another one as the target, got {classes}")
    steps = torch.randint(1, classes, labels.shape, generator=generator, device=generator.device)
    return (labels + steps.to(labels.device)) % classes


def to_8_bits(frames: Tensor) -> Tensor:
    """Frames in [0, 1] rounded to multiples of 1/255: what a file or a camera can hold."""
    return (frames * 255).round() / 255


def margins(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """How far each row of `logits` (B, classes) is on the attacker's side, (B,): above 0 where the attack succeeded.

    The logit of the target minus the largest other one; untargeted, the largest other one minus that of the label.
    """
    chosen = (labels if targets is None else targets)[:, None]
    own = logits.gather(1, chosen)[:, 0]
    other = logits.scatter(1, chosen, -torch.inf).amax(1)
    return other - own if targets is None else own - other


def require_gradients(logits: Logits, frames: Tensor) -> None:
    """Raise BundleError unless `logits` of `frames` can be differentiated by them."""
    with torch.enable_grad():
        output = logits(frames[:1].detach().clone().requires_grad_())
    if not output.requires_grad:
        raise BundleError(
            "attack: expected a network that gives gradients with respect to its input (safetensors or TorchScript), "
            "got logits without a graph, as an ONNX network returns them"
        )


def in_batches(
    frames: Tensor, labels: Tensor, targets: Tensor | None, size: int = BATCH
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Frames, labels and targets in runs of `size` frames."""
    for start in range(0, len(frames), size):
        part = slice(start, start + size)
        yield frames[part], labels[part], None if targets is None else targets[part]
