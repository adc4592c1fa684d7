"""Networks with masked gradients around `colour_classifier.network`, and one that always returns the same class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.red_team.defences import Defence
from processors.bundle import Bundle, load_bundle
from tests.lab import colour_classifier

CPU: Final = torch.device("cpu")


class Steps(nn.Module):
    """A layer that rounds each mean to a grid of 1/128: the output hardly changes, and the gradient is zero."""

    def forward(self, features: Tensor) -> Tensor:
        return (features * 16 * 8).round() / (16 * 8)


class Saturated(nn.Module):
    """A sigmoid whose slope is zero in float32, because it is so steep."""

    def forward(self, features: Tensor) -> Tensor:
        others = (features.sum(1, keepdim=True) - features) / 2
        return torch.sigmoid(1e6 * (features - others))


def _with_last_layer(last: nn.Module) -> nn.Module:
    pool, flat, linear = colour_classifier.network().children()
    return nn.Sequential(pool, flat, linear, last)


def stepped() -> nn.Module:
    """Return the network with rounded scores."""
    return _with_last_layer(Steps())


def saturated() -> nn.Module:
    """Return the network with scores of 0 or 1."""
    return _with_last_layer(Saturated())


class Constant(nn.Module):
    """A network that always returns the first class, with a gradient that does not help an attack."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = colour_classifier.network()

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.inner(frames) * 1e-3 + torch.tensor([1.0, 0.0, 0.0])
        return logits


def constant() -> nn.Module:
    """Return the network that always returns the first class."""
    return Constant()


def load_with_factory(folder: Path, factory: str) -> Bundle:
    """Load a bundle with the network that `factory` makes, and the weights of the colour classifier."""
    colour_classifier.write_bundle(folder)
    settings = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(settings.replace("tests.lab.colour_classifier:network", factory))
    if factory.endswith("constant"):
        state = load_file(folder / "weights.safetensors")
        save_file({f"inner.{name}": value for name, value in state.items()}, folder / "weights.safetensors")
    return load_bundle(folder, CPU)


def defence_of(bundle: Bundle, pictures: LabelledPictures, name: str = "bare") -> Defence:
    """Return the defence `name` with the bundle, whose attacker has these pictures."""
    return Defence(name, bundle, 0.25, to_frames(pictures.images, CPU))


def colour_defence(folder: Path, pictures: LabelledPictures, name: str = "bare") -> Defence:
    """Return the defence `name` with the colour classifier."""
    return defence_of(load_with_factory(folder, "tests.lab.colour_classifier:network"), pictures, name)
