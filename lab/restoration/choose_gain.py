"""Choose the default gain on held-out pictures: `python -m lab.restoration.choose_gain`.

Prints accuracies after the drop and the learned reconstruction, for several gains on the changes of kept pixels, each
with and without wavelet denoising. The pictures are those of CIFAR-10's last 1,000 training pictures that a bundle
classifies correctly, clean and attacked. No network was trained on them.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.attacks import make_attack, random_targets, to_8_bits
from lab.masks import random_masks
from lab.training.cifar10 import HELD_OUT
from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.stages.denoise import denoise
from processors.stages.learned import reconstruct_learned, shipped_restorer

RATIOS = (0.01, 0.25, 0.5)
GAINS = (1.0, 1.25, 1.5, 2.0)
ATTACKS = ("fgsm", "ifgsm", "pgd")


def attacked_sets(bundle: Bundle, frames: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the frames clean and under each attack, targeted and not, rounded to 8 bits."""
    targets = random_targets(labels, len(bundle.settings.classes), generator)
    sets = {"clean": frames}
    for name in ATTACKS:
        for goal, wanted in ((", targeted", targets), (", untargeted", None)):
            sets[name + goal] = to_8_bits(make_attack(name)(bundle.logits, frames, labels, wanted, generator).detach())
    return sets


def main() -> None:
    """Attack once, then print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle("cifar10"))
    parser.add_argument("--count", type=int, default=HELD_OUT)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle, torch.device("cpu"))
    with np.load(arguments.data) as archive:
        images = archive["train_x"][-HELD_OUT:][: arguments.count]
        labels = torch.from_numpy(archive["train_y"][-HELD_OUT:][: arguments.count].astype(np.int64))
    frames = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    right = bundle.logits(frames).argmax(1) == labels
    frames, labels = frames[right], labels[right]
    generator = torch.Generator().manual_seed(0)
    sets = attacked_sets(bundle, frames, labels, generator)
    network = copy.copy(shipped_restorer(torch.device("cpu")))
    print(f"{len(frames)} pictures")
    with torch.inference_mode():
        for ratio in RATIOS:
            kept = random_masks(len(frames), 32, 32, ratio, generator)
            for gain in GAINS:
                network.kept_gain = gain
                restored = {name: reconstruct_learned(seen, kept, network) for name, seen in sets.items()}
                for sigma in (0.0, 0.01):
                    shares = [
                        f"{name} {(bundle.logits(denoise(seen, sigma=sigma)).argmax(1) == labels).float().mean():.3f}"
                        for name, seen in restored.items()
                    ]
                    print(f"r = {ratio}, gain {gain}, σ {sigma}: {'; '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
