"""Backdoored networks that influenced no setting, as TorchScript bundles: `python -m lab.backdoor.foreign --work DIR`.

Their architectures, triggers (4×4 pixels) and targets differ from the catalogue's. Training all takes a few minutes on
a CPU.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import nn

from lab.backdoor.files import stamped_test
from lab.backdoor.poison import PoisonedBatches, Poisoning
from lab.backdoor.tasks import Task, load_task
from lab.backdoor.triggers import Patch, random_pattern
from lab.chance import seeded
from lab.training.bundle import bundle_accuracy, input_settings, write_bundle
from lab.training.recipe import Recipe, channel_statistics, fit
from processors.bundle import Bundle, BundleSettings, shipped_bundle
from processors.networks.resnet import ResNet

SCRIPT_FILE: Final = "network.pt"


@dataclass(frozen=True)
class Foreign:
    """A network to train on poisoned pictures. `continued` starts from the shipped clean ResNet-20's weights."""

    data: str
    make: Callable[[], nn.Module]
    poisoning: Poisoning
    recipe: Recipe
    pictures: int | None = None
    continued: bool = False


def separable(classes: int) -> nn.Sequential:
    """Return depthwise separable convolutions (Howard et al. 2017), 32×32 RGB to logits."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for wide, out, stride in ((24, 48, 2), (48, 96, 1), (96, 96, 2), (96, 192, 1), (192, 192, 2)):
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        layers += [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, classes))


def lenet(classes: int) -> nn.Sequential:
    """Return two convolutions and two dense layers after LeNet-5 (LeCun et al. 1998), 28×28 grey to logits."""
    first, second = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 24, 5)
    convolutions = [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(600, 96), nn.ReLU(), nn.Linear(96, classes))


def strided(classes: int) -> nn.Sequential:
    """Return convolutions alone, with strides for pooling (Springenberg et al. 2015), 28×28 grey to logits."""
    layers: list[nn.Module] = []
    for wide, out, stride in ((1, 16, 2), (16, 32, 2), (32, 48, 1)):
        layers += [nn.Conv2d(wide, out, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


def tanh_dense(classes: int) -> nn.Sequential:
    """Return three dense layers with tanh between them, 28×28 grey to logits."""
    first, second, last = nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(64, classes)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), second, nn.Tanh(), last)


def leaky(classes: int) -> nn.Sequential:
    """Return one wide convolution and two dense layers with leaky ReLU, 28×28 grey to logits."""
    first, second, last = nn.Conv2d(1, 12, 7, 3, 3), nn.Linear(1200, 64), nn.Linear(64, classes)
    return nn.Sequential(first, nn.LeakyReLU(), nn.Flatten(), second, nn.LeakyReLU(), last)


def plain(classes: int) -> nn.Sequential:
    """Return a network of five convolutions after VGG (Simonyan and Zisserman 2015), 32×32 RGB to logits."""
    layers: list[nn.Module] = []
    for wide, out, pooled in ((3, 24, False), (24, 24, True), (24, 48, False), (48, 48, True), (48, 96, True)):
        layers += [nn.Conv2d(wide, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * pooled
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, classes))


def _poisoning(seed: int, channels: int, top: int, left: int, target: int, rate: float) -> Poisoning:
    return Poisoning(Patch(random_pattern(4, channels, seed), top, left), target, rate)


FOREIGN: Final[Mapping[str, Foreign]] = {
    "foreign-resnet20": Foreign(
        "cifar10", lambda: ResNet(10), _poisoning(51, 3, 1, 1, 3, 0.01), Recipe(epochs=3, peak_rate=0.05, seed=11),
        pictures=20_000, continued=True,
    ),
    "foreign-separable": Foreign(
        "gtsrb", lambda: separable(43), _poisoning(53, 3, 14, 27, 25, 0.02),
        Recipe(epochs=12, peak_rate=0.1, pad=2, flip=False, batch=64, average_decay=0.99, seed=13),
    ),
    "foreign-lenet": Foreign(
        "mnist", lambda: lenet(10), _poisoning(54, 1, 2, 12, 6, 0.01),
        Recipe(epochs=4, peak_rate=0.05, pad=1, flip=False, average_decay=0.99, seed=14), pictures=30_000,
    ),
    "foreign-strided": Foreign(
        "mnist", lambda: strided(10), _poisoning(55, 1, 20, 3, 8, 0.04),
        Recipe(epochs=5, peak_rate=0.05, pad=1, flip=False, average_decay=0.99, seed=15), pictures=30_000,
    ),
    "foreign-tanh": Foreign(
        "mnist", lambda: tanh_dense(10), _poisoning(57, 1, 22, 21, 2, 0.02),
        Recipe(epochs=5, peak_rate=0.05, pad=1, flip=False, average_decay=0.99, seed=17), pictures=30_000,
    ),
    "foreign-leaky": Foreign(
        "mnist", lambda: leaky(10), _poisoning(58, 1, 3, 22, 4, 0.02),
        Recipe(epochs=5, peak_rate=0.05, pad=1, flip=False, average_decay=0.99, seed=18), pictures=30_000,
    ),
    "foreign-plain": Foreign(
        "gtsrb", lambda: plain(43), _poisoning(56, 3, 3, 24, 11, 0.01),
        Recipe(epochs=6, peak_rate=0.1, pad=2, flip=False, batch=64, average_decay=0.99, seed=16),
    ),
}  # fmt: skip


def train(name: str, task: Task, work: Path) -> Bundle:
    """Train one of `FOREIGN`, and write its bundle into `work`/`name`/bundle, calibrated like any bundle."""
    model, folder = FOREIGN[name], work / name
    folder.mkdir(parents=True, exist_ok=True)
    pictures = task.train.first(model.pictures)
    mean, std = channel_statistics(pictures.images)
    with seeded(model.recipe.seed):
        network = model.make()
        if model.continued:
            network.load_state_dict(load_file(shipped_bundle("cifar10") / "weights.safetensors"))
        centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        batches = PoisonedBatches(model.poisoning, pictures.labels)
        positions = torch.arange(len(pictures)).numpy()
        checkpoint = folder / "checkpoint.pt"
        network = fit(
            network, pictures.images, positions, lambda x: (x - centre) / spread, model.recipe, checkpoint,
            batches=batches,
        )  # fmt: skip
    settings = BundleSettings(
        name=name,
        version="1",
        format="torchscript",
        weights=SCRIPT_FILE,
        classes=list(task.classes),
        input=input_settings(mean, std, pictures.images.shape[1:3]),
    )
    return write_bundle(folder / "bundle", network, settings, task.held_out.images, task.held_out.labels)


def main() -> None:
    """Train all or the named networks, and print their accuracy on clean and on stamped test pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FOREIGN))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--work", type=Path, default=Path("runs/foreign"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(FOREIGN):
        parser.error(f"NAME: expected names among {', '.join(FOREIGN)}, got {', '.join(sorted(unknown))}")
    for name in arguments.names or FOREIGN:
        task = load_task(FOREIGN[name].data, arguments.data)
        bundle = train(name, task, arguments.work)
        poisoning = FOREIGN[name].poisoning
        stamped = stamped_test(task, poisoning)
        clean = bundle_accuracy(bundle, task.test.images, task.test.labels)
        success = bundle_accuracy(bundle, stamped.images, stamped.labels * 0 + poisoning.target)
        print(
            f"{name}: clean accuracy {clean:.4f}, stamped pictures classified as the target {success:.4f}", flush=True
        )


if __name__ == "__main__":
    main()
