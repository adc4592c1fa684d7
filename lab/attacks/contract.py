"""The interface of an attack, and the parts that all share: targets, 8-bit rounding, gradient check, batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from schemas.errors import BundleError, ConfigError

Logits = Callable[[Tensor], Tensor]
"""A function from frames (B, C, H, W) in [0, 1] to logits (B, classes). Any normalisation happens inside."""

Defended = Callable[[Tensor, torch.Generator], Tensor]
"""A function from frames (B, C, H, W) in [0, 1] and the generator of the defence's draws to logits (B, classes)."""

Norm = Literal["linf", "l2"]

# Bounds the memory for any number of frames: the backward pass of a small network takes about 1 GB.
BATCH = 256


class Attack(Protocol):
    """An attack: it changes frames slightly so that a network errs.

    It has the network but no information on any defence.
    """

    @property
    def name(self) -> str:
        """One of `NAMES`."""
        ...

    @property
    def eps(self) -> float | None:
        """The bound: L∞ or L2 on frames in [0, 1], or degrees for rotations. None if the attack minimises freely."""
        ...

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames (B, C, H, W) in [0, 1], not rounded to 8 bits, for frames of the same shape.

        `labels` (B,) are the correct classes. With `targets` (B,) the attack aims at those classes, with None at any
        class but the label. A frame whose attack fails is returned as close to success as it got. All randomness is
        drawn from `generator`. Raises BundleError if the attack needs gradients that `logits` does not give.
        """
        ...


def random_targets(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Return another class for each of `labels` (B,), uniformly among the `classes` − 1 others."""
    if classes < 2:
        raise ConfigError(f"classes: expected at least 2 to choose another one as the target, got {classes}")
    steps = torch.randint(1, classes, labels.shape, generator=generator, device=generator.device)
    return (labels + steps.to(labels.device)) % classes


def to_8_bits(frames: Tensor) -> Tensor:
    """Return frames in [0, 1] rounded to multiples of 1/255, the precision of a file or a camera."""
    return (frames * 255).round() / 255


def margins(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Return the attacker's margin (B,) for each row of `logits` (B, classes): above 0 where the attack succeeded.

    It is the logit of the target minus the largest other one. Untargeted, it is the largest other one minus that of the
    label.
    """
    chosen = (labels if targets is None else targets)[:, None]
    own = logits.gather(1, chosen)[:, 0]
    other = logits.scatter(1, chosen, -torch.inf).amax(1)
    return other - own if targets is None else own - other


def check_request(frames: Tensor, labels: Tensor, targets: Tensor | None, eps: float | None, norm: Norm) -> None:
    """Raise ConfigError for an invalid attack: frames (B, C, H, W) in [0, 1], classes (B,) and `eps` are checked.

    `eps` must be above 0, and for L∞ at most 1. None is no bound.
    """
    if frames.ndim != 4 or not frames.is_floating_point():
        raise ConfigError(f"attack: expected float frames (B, C, H, W), got {frames.dtype} {tuple(frames.shape)}")
    # `not … >= 0` also holds for NaN.
    if len(frames) and not (frames.min() >= 0 and frames.max() <= 1):
        raise ConfigError(f"attack: expected pictures in [0, 1], got {frames.min():g} to {frames.max():g}")
    for what, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (classes.shape != frames.shape[:1] or classes.dtype != torch.int64):
            got = f"{classes.dtype} {tuple(classes.shape)}"
            raise ConfigError(f"attack: expected {what} ({len(frames)},) int64, one a picture, got {got}")
    most = 1.0 if norm == "linf" else math.inf
    if eps is not None and not (0 < eps <= most and eps < math.inf):
        raise ConfigError(f"eps: expected {'0 < ε ≤ 1' if norm == 'linf' else 'a positive number'}, got {eps:g}")


def check_classes(logits: Tensor, *wanted: Tensor | None) -> None:
    """Raise ConfigError unless each of `wanted` (B,) is a class index of `logits` (B, classes)."""
    for classes in wanted:
        if classes is not None and len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            wrong = int(classes.max()) if classes.max() >= logits.shape[1] else int(classes.min())
            raise ConfigError(f"attack: expected classes from 0 to {logits.shape[1] - 1}, the network's, got {wrong}")


def require_gradients(logits: Logits, frames: Tensor) -> None:
    """Raise BundleError unless `logits` is differentiable with respect to `frames`."""
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
    """Yield frames, labels and targets in batches of `size` frames."""
    for start in range(0, len(frames), size):
        part = slice(start, start + size)
        yield frames[part], labels[part], None if targets is None else targets[part]
