"""Choose the stages' parameters on held-out pictures: `python -m lab.restoration.choose_constants`.

Prints the PSNR (mean over frames, dB) of candidates for masks, reconstruction and denoising. The pictures are the last
1,000 training pictures of CIFAR-10, on which no network was trained. With `--bundle` it also prints that bundle's
accuracy with each candidate.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.masks import random_masks
from processors.bundle import Bundle, load_bundle
from processors.stages.denoise import denoise
from processors.stages.drop import drop
from processors.stages.paper import reconstruct_paper
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import reconstruct
from schemas.limits import dropped_per_block
from schemas.pixels.masks import ROWS, spread_patterns

HELD_OUT = 1000
RATIOS = (0.1, 0.25, 0.5, 0.7)
NOISES = (0.0, 0.02, 0.05)
SIGMAS = (None, 0.005, 0.01, 0.02, 0.03, 0.05)

Stage = Callable[[Tensor, Tensor], Tensor]


def mean_psnr(found: Tensor, clean: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of frames (B, C, H, W) in [0, 1], averaged over frames."""
    return float((-10 * (found - clean).square().mean((1, 2, 3)).clamp_min(1e-10).log10()).mean())


@torch.inference_mode()
def score(found: Tensor, clean: Tensor, labels: Tensor, bundle: Bundle | None) -> str:
    """Return the PSNR, and the accuracy if a bundle is given."""
    text = f"{mean_psnr(found, clean):7.2f}"
    if bundle is not None:
        right = sum(
            int((bundle.logits(bundle.prepare(part)).argmax(1) == wanted).sum())
            for part, wanted in zip(torch.split(found, 250), torch.split(labels, 250), strict=True)
        )
        text += f" {100 * right / len(found):5.1f} %"
    return text


def reconstructions() -> dict[str, Stage]:
    """Return the candidates by name."""
    candidates: dict[str, Stage] = {"dropped pixels left black": drop}
    for sigma in (0.4, 0.48, 0.56, 0.64, 0.8):
        candidates[f"convolution σ {sigma}"] = partial(reconstruct_plate, sigma=sigma, steps=0)
    for steps in (2, 3, 4, 5, 6):
        for lowest in (1.0, 3.0, 8.0):
            name = f"plate, {steps} steps above {lowest:g}"
            candidates[name] = partial(reconstruct_plate, steps=steps, lowest=lowest)
    candidates |= modes()
    return candidates


def modes() -> dict[str, Stage]:
    """Return the modes that a user can choose."""
    return {"default": reconstruct, "thin plate": reconstruct_plate, "Algorithm 1": reconstruct_paper}


def pool_masks(count: int, ratio: float, sigma: float, tries: int) -> Tensor:
    """Return masks (count, 1, 32, 32) bool with rows of a pool that was spread with these parameters."""
    pool = torch.from_numpy(spread_patterns(dropped_per_block(ratio), sigma, tries).copy())
    rows = torch.randint(ROWS, (count, 4, 4), generator=torch.Generator().manual_seed(0))
    return pool[rows].view(count, 4, 4, 8, 8).permute(0, 1, 3, 2, 4).reshape(count, 1, 32, 32)


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--count", type=int, default=HELD_OUT)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle, torch.device("cpu")) if arguments.bundle else None
    with np.load(arguments.data) as archive:
        images, classes = archive["train_x"][-arguments.count :], archive["train_y"][-arguments.count :]
    clean = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    labels = torch.from_numpy(classes.astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    masks = [random_masks(len(clean), 32, 32, ratio, generator) for ratio in RATIOS]

    print("whole frames:" + score(clean, clean, labels, bundle))
    print("pools of masks, thin plate".ljust(30) + "".join(f"r = {ratio}".rjust(16) for ratio in RATIOS))
    for clumping, tries in ((0.7, 0), (0.5, 200), (0.7, 200), (1.0, 200), (1.5, 200), (0.7, 400), (0.7, 1000)):
        pools = [pool_masks(len(clean), ratio, clumping, tries) for ratio in RATIOS]
        cells = [score(reconstruct_plate(clean, kept), clean, labels, bundle).rjust(16) for kept in pools]
        print(f"σ {clumping}, {tries} exchanges tried".ljust(30) + "".join(cells), flush=True)
    print("uniform masks".ljust(30) + "".join(f"r = {ratio}".rjust(16) for ratio in RATIOS))
    uniform = [random_masks(len(clean), 32, 32, ratio, generator, spread=False) for ratio in RATIOS]
    for name, stage in modes().items():
        cells = [score(stage(drop(clean, kept), kept), clean, labels, bundle).rjust(16) for kept in uniform]
        print(name.ljust(30) + "".join(cells), flush=True)
    print("spread masks".ljust(30) + "".join(f"r = {ratio}".rjust(16) for ratio in RATIOS))
    for name, stage in reconstructions().items():
        cells = [score(stage(drop(clean, kept), kept), clean, labels, bundle).rjust(16) for kept in masks]
        print(name.ljust(30) + "".join(cells), flush=True)

    kept = masks[RATIOS.index(0.25)]
    noisy = [
        (clean + noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1) if noise else clean
        for noise in NOISES
    ]
    rebuilt = [reconstruct(drop(frames, kept), kept) for frames in noisy]
    heads = [f"noise {noise}" for noise in NOISES]
    print("\ndenoising after r = 0.25".ljust(31) + "".join(head.rjust(16) for head in heads))
    print("none".ljust(30) + "".join(score(f, clean, labels, bundle).rjust(16) for f in rebuilt))
    for method in ("bayes", "visu"):
        for levels in (1, 2):
            for sigma in SIGMAS:
                name = f"{method}, {levels} levels, σ {'estimated' if sigma is None else sigma}"
                done = [denoise(frames, method, sigma, levels) for frames in rebuilt]
                cells = [score(frames, clean, labels, bundle).rjust(16) for frames in done]
                print(name.ljust(30) + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
