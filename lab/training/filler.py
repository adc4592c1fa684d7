"""Train the network that fills large frames: `python -m lab.training.filler --out FILE`.

Its training pictures are 64×64. They are crops of photographs at full and half size, crops of videos and simulated
scenes, and CIFAR-10 training pictures. The latter are enlarged, or four of them form a mosaic, which has the most
detail per pixel. The photographs are those of scikit-image, without the six of
`docs/results/super-iot/photographs.json` and others of the same subjects. Half of the pictures get a camera's grain.
The drop ratio is drawn per picture.

The loss is the mean logarithm of each picture's squared error over all its pixels, as in its PSNR. Each checkpoint
prints the mean PSNR of fixed held-out crops at r = .25, next to the thin plate's. An interrupted run resumes from its
checkpoint.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from lab.chance import seeded
from lab.masks import random_masks
from lab.training.averaged import AveragedTraining
from lab.training.checkpoints import checkpoint_of
from lab.training.pictures import cifar_pictures, crops_of_larger, random_crop
from lab.training.recipe import Images
from lab.training.restorer import Schedule
from processors.networks.filler import Filler
from processors.stages.drop import drop
from processors.stages.plate import reconstruct_plate
from schemas.runtime.user_errors import run_command

SIDE: Final = 64
PHOTOGRAPHS: Final = (
    "brick", "grass", "gravel", "coins", "moon", "page", "text", "cell", "retina", "hubble_deep_field",
    "immunohistochemistry",
)  # fmt: skip
"""Pictures of `skimage.data` for training."""
HELD_OUT: Final = ("camera",)
"""Pictures of `skimage.data` for validation. Enlarged held-out training pictures of CIFAR-10 are added to them."""
RATIOS: Final = (0.25, 0.25, 0.25, 0.5, 0.125, 0.375, 0.0625, 0.6)
GRAIN: Final = 3 / 255
ERROR_FLOOR: Final = 1e-4
"""Floor of the mean squared error in the loss: crops with less, above 40 dB, contribute little."""
SAVED_EVERY: Final = 250
"""Steps between two checkpoints."""


def photographs(names: tuple[str, ...]) -> list[Images]:
    """Return scikit-image's pictures (H, W, 3) uint8, each at its own and at half its size."""
    from skimage import data

    found = []
    for name in names:
        picture = np.asarray(getattr(data, name)())
        colour = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
        halved = F.avg_pool2d(torch.from_numpy(colour.copy()).permute(2, 0, 1)[None].float(), 2).round_().byte()
        found += [colour, halved[0].permute(1, 2, 0).numpy()]
    return found


def training_crops(folder: Path, count: int, seed: int) -> Tensor:
    """Return `count` crops (3, 64, 64) uint8: a third photographs, a third videos and scenes, a third CIFAR-10."""
    generator = np.random.default_rng(seed)
    pictures = [each for each in photographs(PHOTOGRAPHS) if min(each.shape[:2]) >= SIDE]
    third = count // 3
    cut = [random_crop(pictures[i % len(pictures)], generator, SIDE) for i in range(third)]
    larger = crops_of_larger(folder, third // 2 * 3, seed, SIDE)[: third // 2 * 2]
    small = _stacked(cifar_pictures(folder))
    order = torch.from_numpy(generator.permutation(len(small)))
    enlarged = F.interpolate(small[order[: third // 2]].float(), scale_factor=2.0, mode="bicubic", align_corners=False)
    mosaics = small[order[third // 2 :][: 4 * (third - third // 2)]].view(-1, 2, 2, 3, 32, 32)
    mosaics = mosaics.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE, SIDE)
    return torch.cat((_stacked(np.stack(cut)), _stacked(larger), enlarged.clamp_(0, 255).round_().byte(), mosaics))


def held_out_crops(folder: Path) -> Tensor:
    """Return crops (3, 64, 64) uint8 that are held out of all training."""
    generator = np.random.default_rng(7)
    with np.load(folder / "cifar10.npz") as archive:
        small = _stacked(archive["train_x"][-64:]).float()
    enlarged = F.interpolate(small, scale_factor=2.0, mode="bicubic", align_corners=False).clamp_(0, 255)
    cut = [random_crop(photographs(HELD_OUT)[0], generator, SIDE) for _ in range(192)]
    return torch.cat((_stacked(np.stack(cut)), enlarged.round_().byte()))


def _stacked(pictures: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def batch_of(crops: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return random crops (size, 3, 64, 64) in [0, 1], transposed and mirrored at random; half of them with grain."""
    picked = crops[torch.randint(len(crops), (size,), generator=generator)].float().div_(255)
    mirrored, turned, grainy = (torch.rand(size, 1, 1, 1, generator=generator) < 0.5 for _ in range(3))
    picked = torch.where(mirrored, picked.flip(3), picked)
    picked = torch.where(turned, picked.transpose(2, 3), picked)
    strength = GRAIN * torch.rand(size, 1, 1, 1, generator=generator)
    grain = strength * torch.randn(picked.shape, generator=generator)
    return torch.where(grainy, (picked + grain).clamp(0, 1), picked)


def masks_of(size: int, generator: torch.Generator) -> Tensor:
    """Return masks (size, 1, 64, 64), an equal part for each of `RATIOS`. One part is not spread."""
    each = size // len(RATIOS)
    parts = [random_masks(each, SIDE, SIDE, ratio, generator, i != 1) for i, ratio in enumerate(RATIOS)]
    return torch.cat(parts)


def fit(network: Filler, crops: Tensor, held_out: Tensor, schedule: Schedule, checkpoint: Path) -> Filler:
    """Train in place and return the averaged weights."""
    generator = torch.Generator().manual_seed(1)
    training = AveragedTraining(network, schedule.peak_rate, checkpoint, generator)
    started = time.monotonic()
    for step in range(training.first, schedule.until or schedule.steps):
        clean = batch_of(crops, schedule.batch, generator)
        kept = masks_of(schedule.batch, generator)
        with torch.no_grad():
            filled = reconstruct_plate(clean, kept)
        errors = (network(filled, kept) - clean).square().mean((1, 2, 3))
        loss = (errors + ERROR_FLOOR).log().mean()
        training.descend(loss, step, schedule.rate(step))
        if (step + 1) % SAVED_EVERY == 0:
            ours, plate = held_out_db(training.average, held_out)
            seconds = time.monotonic() - started
            print(
                f"step {step + 1}/{schedule.steps}: held out {ours:.2f} dB, plate {plate:.2f} dB, {seconds:.0f} s",
                flush=True,
            )
            training.save(step)
    return training.average.eval()


@torch.no_grad()
def held_out_db(network: Filler, crops: Tensor) -> tuple[float, float]:
    """Return the mean PSNR in dB of the network and of the thin plate on crops (N, 3, 64, 64) uint8 at r = .25."""
    clean = crops.float().div(255)
    kept = random_masks(len(clean), SIDE, SIDE, 0.25, torch.Generator().manual_seed(3))
    filled = reconstruct_plate(drop(clean, kept), kept)
    restored = network(filled, kept).clamp(0, 1)
    ours, plate = ((found - clean).square().mean((1, 2, 3)).log10().mean() for found in (restored, filled))
    return -10 * float(ours), -10 * float(plate)


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, required=True, help="weights (safetensors)")
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--crops", type=int, default=18_000)
    parser.add_argument("--until", type=int, help="stop after this many steps of the cycle")
    parser.add_argument("--work", type=Path, default=Path("runs/filler"), help="folder of the checkpoint")
    arguments = parser.parse_args()
    with seeded(0):
        network = Filler().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the stubs
    crops = training_crops(arguments.data, arguments.crops, seed=0)
    schedule = Schedule(arguments.steps, arguments.batch, arguments.rate, until=arguments.until)
    given = [each.numpy() for each in (crops, *network.state_dict().values())]
    checkpoint = checkpoint_of(arguments.work, arguments.out.stem, f"{replace(schedule, until=None)}", *given)
    trained = fit(network, crops, held_out_crops(arguments.data), schedule, checkpoint)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, arguments.out)
    arguments.out.chmod(0o644)


if __name__ == "__main__":
    run_command(main)
