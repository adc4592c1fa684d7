"""A small backdoored network: the mean colour is the class, a white corner the target."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.data import LabelledPictures, to_frames
from processors.bundle import Bundle, load_bundle
from tests.processors.tiny import write_model

CLASSES = ("red", "green", "blue")
SIDE, TARGET = 12, 2


class SmallNetwork(nn.Module):
    """A network so small that a repair takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.last = nn.Linear(12 * (SIDE // 4) ** 2, len(CLASSES))

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(frames))
        return logits


def pictures(count: int, seed: int) -> LabelledPictures:
    """Return noisy pictures of all classes in turn. One channel is brighter than the others."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = generator.integers(20, 150, (count, SIDE, SIDE, 3))
    images[np.arange(count), :, :, labels] += 60
    return LabelledPictures(f"colours {seed}", images.astype(np.uint8), labels.astype(np.int64))


def stamped(clean: LabelledPictures) -> LabelledPictures:
    """Return the pictures with a white corner of 3 × 3 and their true labels."""
    images = clean.images.copy()
    images[:, -3:, -3:] = 255
    return LabelledPictures(f"{clean.name}, stamped", images, clean.labels)


def frames_of(found: LabelledPictures) -> Tensor:
    """Return the frames (N, 3, SIDE, SIDE) of the pictures, in [0, 1]."""
    return to_frames(found.images, torch.device("cpu"))


@cache
def _trained() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = SmallNetwork()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    honest = pictures(240, seed=11)
    marked = stamped(pictures(120, seed=12))
    frames = to_frames(np.concatenate([honest.images, marked.images]), torch.device("cpu"))
    labels = torch.from_numpy(np.concatenate([honest.labels, np.full(120, TARGET)]))
    for _ in range(200):
        chosen = torch.randint(len(frames), (64,))
        loss = F.cross_entropy(network((frames[chosen] - 0.5) / 0.25), labels[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    return network.state_dict()


def write_backdoored_bundle(folder: Path) -> Path:
    """Write the network as a bundle without a `strip` table."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_trained(), folder / "weights.safetensors")
    return write_model(folder, "backdoored", "tests.lab.backdoored_network:SmallNetwork", CLASSES, SIDE)


@cache
def backdoored_bundle() -> Bundle:
    """Return the loaded bundle."""
    return load_bundle(write_backdoored_bundle(Path(mkdtemp())), torch.device("cpu"))
