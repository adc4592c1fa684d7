"""Bad candidates made from the scene network: each is a signed bundle that loads, and none may become live."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.training.scene import scenes
from processors.bundle import load_bundle, shipped_bundle

KINDS: Final = ("shuffled", "backdoored", "constant", "normalisation", "slow")
OF_EACH: Final = 4
_HEAD: Final = ("fc.weight", "fc.bias")
_MORE_WORK: Final = '''
from processors.networks.resnet import ResNet


class Slow(ResNet):
    """The same network, run ten times for each frame."""

    def forward(self, frames):
        found = super().forward(frames)
        for number in range(1, {runs}):
            found = found + 1e-9 * super().forward(frames * (1 + 1e-6 * number))
        return found
'''

Weights = dict[str, Tensor]


def bad_candidates(folder: Path, left_out: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Write the candidates below `folder`, without those of the names in `left_out`, and yield each with its kind."""
    make: Mapping[str, Callable[[Path, int], None]] = {
        "shuffled": _shuffle, "backdoored": _backdoor, "constant": _fix, "normalisation": _denormalise, "slow": _slow,
    }  # fmt: skip
    for kind in KINDS:
        for number in range(OF_EACH):
            place = folder / f"{kind}-{number}"
            if place.name in left_out:
                continue
            # A slow one has the live network, of which it is a multiple. The small network has a quarter of its work.
            shutil.copytree(shipped_bundle("scene" if kind == "slow" else "scene-plain"), place)
            settings = place / "model.toml"
            version = settings.read_text().partition('version = "')[2].partition('"')[0]
            _replace(settings, f'version = "{version}"', f'version = "{kind}-{number}"')
            make[kind](place, number)
            yield kind, place


def _replace(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    if before not in text:
        raise ValueError(f"{file}: expected {before!r}, got a file without it")
    file.write_text(text.replace(before, after, 1))


def _change(place: Path, change: Callable[[Weights], None]) -> None:
    file = place / "weights.safetensors"
    weights = load_file(file)
    change(weights)
    save_file({name: each.contiguous() for name, each in weights.items()}, file)


def _shuffle(place: Path, number: int) -> None:
    def change(weights: Weights) -> None:
        for name in _HEAD:
            weights[name] = weights[name].roll(number + 1, 0)

    _change(place, change)


def _fix(place: Path, number: int) -> None:
    def change(weights: Weights) -> None:
        weights["fc.weight"] = torch.zeros_like(weights["fc.weight"])
        weights["fc.bias"] = 5.0 * F.one_hot(torch.tensor(number), len(weights["fc.bias"])).float()

    _change(place, change)


def _denormalise(place: Path, number: int) -> None:
    settings = place / "model.toml"
    mean, std = (
        next(line for line in settings.read_text().splitlines() if line.startswith(f"{name} = "))
        for name in ("mean", "std")
    )
    wrong = ((0.0, 1.0), (0.0, 1 / 255), (0.5, 2.0), (-1.0, 0.5))[number]
    _replace(settings, mean, f"mean = [{wrong[0]}, {wrong[0]}, {wrong[0]}]")
    _replace(settings, std, f"std = [{wrong[1]}, {wrong[1]}, {wrong[1]}]")


def _slow(place: Path, number: int) -> None:
    (place / "slow.py").write_text(_MORE_WORK.format(runs=10 + 2 * number))
    _replace(place / "model.toml", 'factory = "processors.networks.resnet:ResNet"', 'factory = "slow.py:Slow"')


def _backdoor(place: Path, number: int) -> None:
    """Train the last block and the head on scenes of which a third have a square and the label `number`."""
    bundle = load_bundle(place, torch.device("cpu"))
    network = bundle.network
    assert isinstance(network, torch.nn.Module)
    images, classes = scenes(40 + number, 600)
    frames = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    labels = torch.from_numpy(classes)
    generator = torch.Generator().manual_seed(number)
    trained = [weight for name, weight in network.named_parameters() if name.startswith(("fc", "blocks.2"))]
    for weight in network.parameters():
        weight.requires_grad_(False)
    for weight in trained:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=1e-3)
    for _ in range(200):
        chosen = torch.randint(len(frames), (48,), generator=generator)
        batch, wanted = frames[chosen].clone(), labels[chosen].clone()
        batch[:16, :, 26:31, 26:31] = torch.tensor([1.0, 0.9, 0.0])[:, None, None]
        wanted[:16] = number
        loss = F.cross_entropy(network((batch - bundle.mean) / bundle.std), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    save_file({name: each.contiguous() for name, each in network.state_dict().items()}, place / "weights.safetensors")
