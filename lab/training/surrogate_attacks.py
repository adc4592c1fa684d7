"""Attacked training pictures for the learned reconstruction: `python -m lab.training.surrogate_attacks`.

Each picture is attacked through one of the surrogates by 1 to 3 signed gradient steps (I-FGSM: Kurakin et al. 2017),
half of them towards a random other class. The strength is drawn per picture: L∞ from .002 to .012, for one in eight
from .012 to 8/255. The pictures are rounded to 8 bits, as by a camera.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.networks.families import SURROGATES
from lab.training.cifar10 import HELD_OUT
from lab.training.families import NETWORKS
from lab.training.recipe import Images
from processors.bundle import Bundle, load_bundle
from schemas.runtime.user_errors import run_command

BATCH = 256


def draw_strengths(count: int, generator: torch.Generator) -> Tensor:
    """Return L∞ bounds (count, 1, 1, 1) on the scale [0, 1]."""
    share = torch.rand(count, generator=generator)
    usual, strong = 0.002 + 0.010 * share, 0.012 + (8 / 255 - 0.012) * share
    rare = torch.rand(count, generator=generator) < 1 / 8
    return torch.where(rare, strong, usual)[:, None, None, None]


def few_steps(
    surrogate: Bundle, frames: Tensor, labels: Tensor, steps: int, targeted: bool, generator: torch.Generator
) -> Tensor:
    """Return attacked frames (B, C, H, W) in [0, 1], rounded to 8 bits, after `steps` signed steps.

    Each step has the length 1.25 × bound ÷ `steps`.
    """
    bounds = draw_strengths(len(frames), generator)
    classes = len(surrogate.settings.classes)
    goals = labels
    if targeted:
        goals = (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes
    direction = -1.0 if targeted else 1.0
    length = bounds * (1.0 if steps == 1 else 1.25 / steps)
    attacked = frames
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        loss = F.cross_entropy(surrogate.logits(attacked), goals, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, attacked)
        moved = attacked.detach() + direction * length * gradient.sign()
        attacked = torch.minimum(torch.maximum(moved, frames - bounds), frames + bounds).clamp(0, 1)
    return (attacked * 255).round() / 255


def attacked_pictures(images: Images, labels: Tensor, surrogates: list[Bundle], generator: torch.Generator) -> Images:
    """Return one attacked version (N, H, W, C) uint8 of each picture. Each batch draws a new attack."""
    result = np.empty_like(images)
    for start in range(0, len(images), BATCH):
        frames = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
        frames = frames.contiguous(memory_format=torch.channels_last)
        chosen, steps, targeted = (int(torch.randint(n, (1,), generator=generator)) for n in (len(surrogates), 3, 2))
        attacked = few_steps(
            surrogates[chosen], frames, labels[start : start + BATCH], steps + 1, bool(targeted), generator
        )
        result[start : start + BATCH] = (attacked * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return result


def main() -> None:
    """Attack the training pictures in several versions and save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, default=Path("runs/restorer/attacked"))
    parser.add_argument("--versions", type=int, nargs="+", default=[0, 1, 2], help="version numbers, one seed each")
    arguments = parser.parse_args()
    with np.load(arguments.data / "cifar10.npz") as archive:
        images = archive["train_x"][:-HELD_OUT]
        labels = torch.from_numpy(archive["train_y"][:-HELD_OUT].astype(np.int64))
    surrogates = [load_bundle(NETWORKS / name, torch.device("cpu")) for name in SURROGATES]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for version in arguments.versions:
        started = time.monotonic()
        generator = torch.Generator().manual_seed(version)
        np.save(arguments.out / f"{version}.npy", attacked_pictures(images, labels, surrogates, generator))
        print(f"version {version}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    run_command(main)
