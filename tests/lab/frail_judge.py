"""A network that leans on a faint sign which an attacker turns round, beside a strong and noisy one that he cannot."""

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
"""Half of what sets the classes apart in blue, and in red, where each picture strays by so much."""


def network() -> nn.Sequential:
    """Two convolutions, with statistics that a batch leaves behind."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def pictures(count: int, seed: int) -> LabelledPictures:
    """Both classes in turn."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    sign = (2 * labels - 1)[:, None, None]
    images = 0.5 + generator.normal(0, 0.02, (count, SIDE, SIDE, 3))
    images[..., 2] += FAINT * sign
    images[..., 0] += STRONG * sign + generator.normal(0, SPREAD, (count, 1, 1))
    return LabelledPictures(f"frail {seed}", np.rint(255 * images.clip(0, 1)).astype(np.uint8), labels)


@cache
def _trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    judge = network()
    first = judge[0]
    assert isinstance(first, nn.Conv2d)
    # It starts, and stays, with an eye for blue alone.
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    with torch.no_grad():
        first.weight *= blue
    first.weight.register_hook(lambda gradient: gradient * blue)  # type: ignore[no-untyped-call]  # no annotations
    optimiser = torch.optim.Adam(judge.parameters(), 0.01)
    known = pictures(256, 11)
    frames, labels = to_frames(known.images, torch.device("cpu")), torch.from_numpy(known.labels)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(judge((frames - 0.5) / 0.25), labels).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    return judge.state_dict()


def write_frail(folder: Path, kind: str = "safetensors") -> Path:
    """The network as a bundle folder without a `strip` table, in safetensors or as TorchScript."""
    folder.mkdir(parents=True, exist_ok=True)
    judge = network()
    judge.load_state_dict(_trained())
    scripted = kind == "torchscript"
    table = {
        "name": "frail", "version": "1", "format": kind, "weights": "weights.pt" if scripted else "weights.safetensors",
        "classes": list(CLASSES),
        "input": {
            "height": SIDE, "width": SIDE, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "policy": "resize",
        },
    }  # fmt: skip
    if not scripted:
        table["factory"] = "tests.lab.frail_judge:network"
    save_network(judge, folder / str(table["weights"]), "torchscript" if scripted else "safetensors")
    (folder / "model.toml").write_text(to_toml(table))
    return folder


@cache
def frail_bundle() -> Bundle:
    """The same, loaded."""
    return load_bundle(write_frail(Path(mkdtemp())), torch.device("cpu"))
