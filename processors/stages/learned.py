"""The default reconstruction: a trained network that fills dropped pixels and undoes small changes to the kept ones.

It estimates the frame before the attack from perturbed kept pixels and the mask; `lab.training.restorer` trains it. It
starts from the thin plate's result, and its training used no classifier.

Large frames pass a smaller network that fills dropped pixels and leaves the rest alone; `lab.training.filler` trains
it. Its training included no attack: a network that expects one mistakes fine texture for it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from processors.networks.filler import Filler
from processors.networks.restorer import Restorer, Restores
from processors.stages.plate import reconstruct_plate
from processors.stages.shapes import check_kept
from schemas.errors import StageError

PIXELS_AT_ONCE = 1 << 16
"""On the CPU, frames pass in groups of about this many pixels: larger ones exceed the processor's caches."""


SMALL_SIDE = 128
"""Shorter side in pixels up to which the network that was trained on attacked pictures restores a frame."""


KEPT_GAIN = 1.25
"""Factor of changes on those frames: a conditional mean removes only part of the attack from the kept pixels. Chosen on
the last 1,000 training pictures of CIFAR-10; 1.5 costs clean frames twice as much.
"""


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # else no gradient could pass a network that a live batch loaded
def shipped_restorer(device: torch.device) -> Restorer:
    """Return the shipped, trained network for small frames on `device`, loaded once."""
    network = Restorer()
    _load(network, "weights.safetensors", device)
    network.kept_gain = KEPT_GAIN
    return network


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def shipped_filler(device: torch.device) -> Filler:
    """Return the shipped, trained network for large frames on `device`, loaded once."""
    network = Filler()
    _load(network, "large.safetensors", device)
    return network


def _load(network: nn.Module, name: str, device: torch.device) -> None:
    with as_file(files("bundles") / "restorer" / name) as path:
        network.load_state_dict(load_file(path))
    network.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]  # missing from stubs


class Restorers(NamedTuple):
    """The shipped networks, and the choice between them for a frame."""

    small: Restores
    large: Restores

    def of(self, height: int, width: int) -> Restores:
        """Return the network for frames of this size."""
        return self.large if min(height, width) > SMALL_SIDE else self.small


def shipped_restorers(device: torch.device) -> Restorers:
    """Return both networks on `device`, loaded once."""
    return Restorers(shipped_restorer(device), shipped_filler(device))


def reconstruct_learned(frames: Tensor, kept: Tensor, network: Restores | None = None) -> Tensor:
    """Restore `frames` (B, 1 or 3, H, W) in [0, 1], of which pixels are missing where `kept` (B, 1, H, W) is False.

    Values of dropped pixels are not read. Grey frames are restored as three equal channels whose mean is the result.
    `network` is the shipped one for frames of this size unless another is given. Raises StageError if shapes or types
    do not fit.
    """
    check_kept(frames, kept)
    if frames.shape[1] not in (1, 3):
        raise StageError(f"frames: expected 1 or 3 channels, got {frames.shape[1]}")
    network = network or shipped_restorers(frames.device).of(*frames.shape[2:])
    at_once = len(frames)
    if frames.device.type == "cpu":
        at_once = max(1, PIXELS_AT_ONCE // (frames.shape[2] * frames.shape[3]))
    if len(frames) <= at_once:
        return _restore(network, frames, kept)
    parts = zip(torch.split(frames, at_once), torch.split(kept, at_once), strict=True)
    return torch.cat([_restore(network, *part) for part in parts])


def _restore(network: Restores, frames: Tensor, kept: Tensor) -> Tensor:
    filled = reconstruct_plate(frames, kept)
    own = network.dtype
    if filled.shape[1] == 3:
        restored = network(filled.to(own), kept)
    else:
        restored = network(filled.to(own).expand(-1, 3, -1, -1), kept).mean(1, keepdim=True)
    return restored.to(filled.dtype).clamp(0, 1)
