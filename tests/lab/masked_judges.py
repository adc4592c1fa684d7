"""Networks like `colour_judge.network`, behind what hides their gradients, or what looks robust and is not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from lab.red_team.defences import Defence
from processors.bundle import Bundle, load_bundle
from tests.lab import colour_judge

CPU: Final = torch.device("cpu")


class Steps(nn.Module):
    """Rounds each mean to a grid of 16 levels: the answer hardly changes, the gradient is zero."""

    def forward(self, features: Tensor) -> Tensor:
        return (features * 16 * 8).round() / (16 * 8)


class Saturated(nn.Module):
    """A sigmoid so steep that float32 leaves nothing of its slope."""

    def forward(self, features: Tensor) -> Tensor:
        others = (features.sum(1, keepdim=True) - features) / 2
        return torch.sigmoid(1e6 * (features - others))


def _between(middle: nn.Module) -> nn.Module:
    pool, flat, linear = colour_judge.network().children()
    return nn.Sequential(pool, flat, linear, middle)


def stepped() -> nn.Module:
    """The judge on rounded scores."""
    return _between(Steps())


def saturated() -> nn.Module:
    """The judge whose scores are 0 or 1."""
    return _between(Saturated())


class Constant(nn.Module):
    """Always the first class, whatever it is shown, with a gradient that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = colour_judge.network()

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.inner(frames) * 1e-3 + torch.tensor([1.0, 0.0, 0.0])
        return logits


def constant() -> nn.Module:
    """The network that nothing sways."""
    return Constant()


def judge(folder: Path, factory: str) -> Bundle:
    """A bundle around the network that `factory` makes, with the weights of the colour judge."""
    colour_judge.write_bundle(folder)
    settings = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(settings.replace("tests.lab.colour_judge:network", factory))
    if factory.endswith("constant"):
        state = load_file(folder / "weights.safetensors")
        save_file({f"inner.{name}": value for name, value in state.items()}, folder / "weights.safetensors")
    return load_bundle(folder, CPU)


def against(bundle: Bundle, pictures: LabelledPictures, name: str = "bare") -> Defence:
    """A defence around it, whose attacker has those pictures."""
    return Defence(name, bundle, 0.25, to_frames(pictures.images, CPU))
