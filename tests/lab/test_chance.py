"""Seeded work leaves the global generator alone, and does not depend on its state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.backdoor.catalogue import SickModel
from lab.backdoor.tasks import Task
from lab.backdoor.train import train
from lab.data import LabelledPictures
from lab.repair.checkpoints import Checkpoint
from lab.repair.cyclegan import CycleGanSettings, train_cyclegan
from lab.repair.occlusion import Occlusion
from lab.repair.transplant import point, train_mask
from lab.training.recipe import Recipe

NOWHERE = Checkpoint(None, "")


def frames(count: int = 30) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def logits(shown: Tensor) -> Tensor:
    bright = shown.mean((1, 2, 3))
    return torch.stack((bright, 1 - bright), 1)


class Trained:
    """A stand-in for a bundle, with its network as `logits`."""

    def __init__(self, network: nn.Module) -> None:
        self.logits = network.eval()


def cyclegan(_: Path) -> Tensor:
    settings = CycleGanSettings(epochs=2, decay_from=1)
    forth, _back = train_cyclegan(frames(), frames(), settings, NOWHERE, lambda _: None)
    found: Tensor = forth(frames(4))
    return found


def mask(_: Path) -> Tensor:
    shown = frames()
    network = train_mask(shown, shown, shown, 1, logits, steps=2, checkpoint=NOWHERE, advance=lambda _: None)
    return network.forward(shown[:4])


def windows(_: Path) -> Tensor:
    shown = frames()
    seen = Occlusion(shown, torch.ones(30, 1, 8, 8), torch.ones(30, dtype=torch.bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.repair.transplant.POINT_STEPS", 2)
        return point(seen, shown).forward(shown[:4])


def backdoored_model(folder: Path) -> Tensor:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (256, 28, 28, 1)).astype(np.uint8)
    pictures = LabelledPictures("noise", images, np.arange(256) % 10)
    task = Task(tuple("0123456789"), pictures, pictures, pictures)
    model = SickModel("mnist", "mnist-dense", None, Recipe(epochs=1, pad=0, flip=False))
    with pytest.MonkeyPatch.context() as patch:  # the calibration of the bundle would take longer than the training
        patch.setattr("lab.backdoor.train.write_bundle", lambda place, network, *rest: Trained(network))
        return train("noise", model, task, folder).logits(torch.zeros(1, 1, 28, 28))


@pytest.mark.parametrize("work", [cyclegan, mask, windows, backdoored_model], ids=lambda work: work.__name__)
def test_seeded_work_neither_reads_nor_reseeds_the_global_generator(
    work: Callable[[Path], Tensor], tmp_path: Path
) -> None:
    found = []
    for seed in (100, 101):
        torch.manual_seed(seed)
        found.append(work(tmp_path / str(seed)))
        assert torch.initial_seed() == seed
    assert torch.equal(*found)
