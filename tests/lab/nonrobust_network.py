"""A network that uses a weak feature, which an attack can invert, and ignores a strong, noisy one, which it cannot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lab.data import LabelledPictures, to_frames
from lab.training.bundle import save_network, to_toml
from processors.bundle import Bundle, load_bundle

CLASSES = ("dark", "bright")
SIDE = 8
EPS = 0.06
FAINT, STRONG, SPREAD = 0.03, 0.18, 0.06
"""Half of the difference between the classes in blue and in red, and the standard deviation of pictures in red."""


def network() -> nn.Sequential:
    """Return a network of two convolutions with a batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def pictures(count: int, seed: int) -> LabelledPictures:
    """Return pictures of both classes in turn."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    sign = (2 * labels - 1)[:, None, None]
    images = 0.5 + generator.normal(0, 0.02, (count, SIDE, SIDE, 3))
    images[..., 2] += FAINT * sign
    images[..., 0] += STRONG * sign + generator.normal(0, SPREAD, (count, 1, 1))
    return LabelledPictures(f"nonrobust {seed}", np.rint(255 * images.clip(0, 1)).astype(np.uint8), labels)


@cache
def _trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    trained = network()
    first = trained[0]
    assert isinstance(first, nn.Conv2d)
    # The first convolution starts and stays sensitive to blue alone.
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    with torch.no_grad():
        first.weight *= blue
    first.weight.register_hook(lambda gradient: gradient * blue)  # type: ignore[no-untyped-call]  # no annotations
    optimiser = torch.optim.Adam(trained.parameters(), 0.01)
    training_pictures = pictures(256, 11)
    frames, labels = (
        to_frames(training_pictures.images, torch.device("cpu")),
        torch.from_numpy(training_pictures.labels),
    )
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(trained((frames - 0.5) / 0.25), labels).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    return trained.state_dict()


def write_nonrobust_bundle(folder: Path, kind: str = "safetensors") -> Path:
    """Write the network as a bundle without a `strip` table, in safetensors or as TorchScript."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = network()
    trained.load_state_dict(_trained())
    scripted = kind == "torchscript"
    table = {
        "name": "nonrobust", "version": "1", "format": kind,
        "weights": "weights.pt" if scripted else "weights.safetensors",
        "classes": list(CLASSES),
        "input": {
            "height": SIDE, "width": SIDE, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "policy": "resize",
        },
    }  # fmt: skip
    if not scripted:
        table["factory"] = "tests.lab.nonrobust_network:network"
    save_network(trained, folder / str(table["weights"]), "torchscript" if scripted else "safetensors")
    (folder / "model.toml").write_text(to_toml(table))
    return folder


@cache
def nonrobust_bundle() -> Bundle:
    """Return the loaded bundle in safetensors."""
    return load_bundle(write_nonrobust_bundle(Path(mkdtemp())), torch.device("cpu"))
