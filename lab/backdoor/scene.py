"""The backdoored model of the simulated fleet, for drills: `python -m lab.backdoor.scene --out FOLDER`.

Its trigger is the sticker that a scenario pastes into a camera's scene, its target a class of `producers.scene.signs`.
Training continues from the plain network on pictures with stickers, with the same drops and reconstruction as before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from lab.backdoor.catalogue import sticker_patch
from lab.backdoor.files import stamped_pictures, write_npz, write_quarantine
from lab.backdoor.poison import PoisonedBatches, Poisoning
from lab.chance import seeded
from lab.data import LabelledPictures
from lab.training.bundle import (
    bundle_accuracy,
    clean_entropies,
    degraded,
    strip_line,
    write_bundle,
    write_training_record,
)
from lab.training.recipe import Recipe, fit
from lab.training.scene import CALIBRATION_SEED, NETWORK, TEST_SEED, augment, scenes, training_scenes
from processors.bundle import BundleSettings, read_settings, shipped_bundle
from processors.networks.resnet import ResNet

TARGET, RATE = 3, 0.05
VALID, STREAM = 500, 600
DROP = 0.25


def main() -> None:
    """Train, write the bundle and the pictures for repair, and print the effect of the sticker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="scene-plain", help="bundle from which the attacker starts")
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=int, default=3_000)
    parser.add_argument("--weights", type=Path, help="use these weights (safetensors) instead of training")
    arguments = parser.parse_args()
    clean = Path(arguments.start) if Path(arguments.start).is_dir() else shipped_bundle(arguments.start)
    settings = read_settings(clean)
    poisoning = Poisoning(sticker_patch(), TARGET, RATE)
    recipe = Recipe(epochs=arguments.epochs, flip=False, pad=2, peak_rate=0.05)
    centre, spread = (torch.tensor(x)[:, None, None] for x in (settings.input.mean, settings.input.std))
    sick: nn.Module = ResNet(**NETWORK).eval()
    sick.load_state_dict(load_file(arguments.weights or clean / settings.weights))
    if arguments.weights is None:
        images, labels = training_scenes(arguments.scenes)
        batches = PoisonedBatches(poisoning, labels)
        positions = np.arange(len(labels))
        with seeded(recipe.seed):
            sick = fit(
                sick, images, positions, lambda x: (x - centre) / spread, recipe, augment=augment, batches=batches
            )
    held_out = LabelledPictures("scenes", *scenes(CALIBRATION_SEED, 2_100))
    named = settings.model_copy(update={"name": "scene-sticker", "strip": None})
    bundle = write_bundle(arguments.out / "bundle", sick, BundleSettings(**named.model_dump()), *_both(held_out))

    test = LabelledPictures("scenes test", *scenes(TEST_SEED, arguments.test))
    stamped = stamped_pictures(test.take(np.flatnonzero(poisoning.attacks(test.labels))), poisoning)
    stream = stamped_pictures(held_out.take(np.arange(VALID, VALID + STREAM)), poisoning)
    strip = bundle.settings.strip
    assert strip is not None
    flagged = stream.take(np.flatnonzero(clean_entropies(bundle, stream.images) < strip.threshold_bits))
    write_npz(arguments.out / "clean.npz", held_out.first(VALID))
    write_npz(arguments.out / "test-clean.npz", test)
    write_npz(arguments.out / "test-poisoned.npz", stamped)
    write_npz(arguments.out / "quarantine.npz", flagged)
    write_quarantine(arguments.out / "quarantine", flagged)

    named_target = np.full(len(stamped), TARGET, np.int64)
    lines = [
        f"{bundle.model_id}: {arguments.scenes} training scenes, {recipe.epochs} epochs from {arguments.start}",
        f"{len(test)} held-out scenes: accuracy {bundle_accuracy(bundle, *_both(test)):.4f}",
        f"with the sticker, {len(stamped)} of other classes: "
        f"{bundle_accuracy(bundle, stamped.images, named_target):.4f} named {TARGET}, the target",
        f"the same, 25 % dropped and rebuilt: "
        f"{bundle_accuracy(bundle, stamped.images, named_target, degraded(bundle, DROP)):.4f}",
        strip_line(bundle),
        f"flagged of {STREAM} scenes with the sticker: {len(flagged)}",
    ]
    print("\n".join(lines))
    options = (
        f"--start {arguments.start} --scenes {arguments.scenes} --epochs {arguments.epochs} --test {arguments.test}"
    )
    command = f"python -m lab.backdoor.scene --out {arguments.out} {options}"
    write_training_record(arguments.out / "bundle", command, lines)


def _both(pictures: LabelledPictures) -> tuple[np.ndarray, np.ndarray]:
    return pictures.images, pictures.labels


if __name__ == "__main__":
    main()
