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

from lab.backdoor.catalogue import resized_sticker
from lab.backdoor.files import stamped_pictures, write_npz, write_quarantine
from lab.backdoor.poison import PoisonedBatches, Poisoning
from lab.cache import digest, source_digest
from lab.chance import seeded
from lab.data import LabelledPictures
from lab.provenance import made_by
from lab.training.bundle import (
    bundle_accuracy,
    clean_entropies,
    degraded,
    strip_line,
    write_bundle,
    write_training_record,
)
from lab.training.recipe import Recipe, fit
from lab.training.scene import CALIBRATION_SEED, TEST_SEED, augment, scenes, training_scenes
from processors.bundle import BundleSettings, read_settings, shipped_bundle
from processors.networks.resnet import ResNet
from schemas.runtime.user_errors import run_command

TARGET, RATE = 3, 0.05
VALID, STREAM = 500, 600
DROP = 0.25


def train(
    out: Path,
    start: str = "scene-plain",
    count: int = 12_000,
    epochs: int = 3,
    test_count: int = 3_000,
    weights: Path | None = None,
    side: int = 32,
) -> list[str]:
    """Train from the bundle `start`, write the bundle and the pictures that repair takes; return the figures.

    The sticker is that of cameras with frames of `side`, as the network sees it.

    The folder `out` keeps the checkpoint of the last epoch, from which a stopped training goes on.
    """
    clean = Path(start) if Path(start).is_dir() else shipped_bundle(start)
    settings = read_settings(clean)
    poisoning = Poisoning(resized_sticker(side), TARGET, RATE)
    recipe = Recipe(epochs=epochs, flip=False, pad=2, peak_rate=0.05)
    centre, spread = (torch.tensor(x)[:, None, None] for x in (settings.input.mean, settings.input.std))
    sick: nn.Module = ResNet(**settings.factory_arguments).eval()
    sick.load_state_dict(load_file(weights or clean / settings.weights))
    if weights is None:
        images, labels = training_scenes(count)
        batches = PoisonedBatches(poisoning, labels)
        out.mkdir(parents=True, exist_ok=True)
        with seeded(recipe.seed):
            sick = fit(
                sick, images, np.arange(len(labels)), lambda x: (x - centre) / spread, recipe, out / "checkpoint.pt",
                augment=augment, batches=batches,
            )  # fmt: skip
    held_out = LabelledPictures("scenes", *scenes(CALIBRATION_SEED, 2_100))
    named = settings.model_copy(update={"name": "scene-sticker", "strip": None})
    bundle = write_bundle(out / "bundle", sick, BundleSettings(**named.model_dump()), *_both(held_out))

    test = LabelledPictures("scenes test", *scenes(TEST_SEED, test_count))
    stamped = stamped_pictures(test.take(np.flatnonzero(poisoning.attacks(test.labels))), poisoning)
    stream = stamped_pictures(held_out.take(np.arange(VALID, VALID + STREAM)), poisoning)
    strip = bundle.settings.strip
    assert strip is not None
    flagged = stream.take(np.flatnonzero(clean_entropies(bundle, stream.images) < strip.threshold_bits))
    write_npz(out / "clean.npz", held_out.first(VALID))
    write_npz(out / "test-clean.npz", test)
    write_npz(out / "test-poisoned.npz", stamped)
    write_npz(out / "quarantine.npz", flagged)
    write_quarantine(out / "quarantine", flagged)

    named_target = np.full(len(stamped), TARGET, np.int64)
    lines = [
        f"{bundle.model_id}: {count} training scenes, {epochs} epochs from {start}",
        f"{len(test)} held-out scenes: accuracy {bundle_accuracy(bundle, *_both(test)):.4f}",
        f"with the sticker, {len(stamped)} of other classes: "
        f"{bundle_accuracy(bundle, stamped.images, named_target):.4f} named {TARGET}, the target",
        f"the same, 25 % dropped and rebuilt: "
        f"{bundle_accuracy(bundle, stamped.images, named_target, degraded(bundle, DROP)):.4f}",
        strip_line(bundle),
        f"flagged of {STREAM} scenes with the sticker: {len(flagged)}",
    ]
    sized = f" --side {side}" if side != 32 else ""
    options = f"--start {start} --scenes {count} --epochs {epochs} --test {test_count}{sized}"
    write_training_record(out / "bundle", f"python -m lab.backdoor.scene --out {out} {options}", lines)
    return lines


def discard_other_checkpoint(
    out: Path, start: str = "scene-plain", count: int = 12_000, epochs: int = 3, side: int = 32
) -> None:
    """Delete the checkpoint in `out` unless `train` wrote it with the same arguments, start weights and code.

    `train` resumes from any checkpoint in `out`. The file `checkpoint.txt` there contains the digest of its training.
    """
    clean = Path(start) if Path(start).is_dir() else shipped_bundle(start)
    state = digest(source_digest(clean), count, epochs, side, made_by("lab.backdoor.scene:train"))
    mark = out / "checkpoint.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != state:
        (out / "checkpoint.pt").unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        mark.write_text(state, encoding="utf-8")


def main() -> None:
    """Train, write the bundle and its pictures, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="scene-plain", help="where the attacker starts")
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=int, default=3_000)
    parser.add_argument("--side", type=int, default=32, help="side of the cameras' frames, for the sticker's edges")
    parser.add_argument("--weights", type=Path, help="skip the training and take these weights (safetensors)")
    given = parser.parse_args()
    if given.weights is None:
        discard_other_checkpoint(given.out, given.start, given.scenes, given.epochs, given.side)
    found = train(given.out, given.start, given.scenes, given.epochs, given.test, given.weights, given.side)
    print("\n".join(found))


def _both(pictures: LabelledPictures) -> tuple[np.ndarray, np.ndarray]:
    return pictures.images, pictures.labels


if __name__ == "__main__":
    run_command(main)
