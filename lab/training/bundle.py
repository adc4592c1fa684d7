"""From a trained network to a bundle folder: weights, STRIP overlays and threshold, `model.toml`, `training.md`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.masks import random_masks
from lab.training.recipe import Images, Labels
from processors.bundle import Bundle, BundleSettings, InputSettings, StripSettings, load_bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from processors.stages.strip import strip_entropy

OVERLAYS = 100
FRR = 0.01
WEIGHTS_FILE = "weights.safetensors"
OVERLAYS_FILE = "overlays.npy"


def write_bundle(
    folder: Path,
    network: nn.Module,
    settings: BundleSettings,
    images: Images,
    labels: Labels,
    calibration_limit: int = 2000,
) -> Bundle:
    """Write `network` as a bundle into `folder` and return it as loaded from there.

    `settings` says all but the `strip` table. `images` (N, H, W, C) uint8 of the network's input size and `labels` (N,)
    are clean pictures that took no part in the training: the first ones of each class become the overlays, up to
    `calibration_limit` others set the threshold, so that a share `FRR` of them falls below it.
    Raises ValueError when a class is missing or fewer than 1 / FRR pictures are left.
    """
    chosen = overlay_choice(labels, len(settings.classes))
    rest = np.setdiff1d(np.arange(len(labels)), chosen)[:calibration_limit]
    if len(rest) * FRR < 1:
        raise ValueError(f"expected at least {round(1 / FRR)} pictures beside the overlays, got {len(rest)}")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)
    # safetensors writes for the owner alone; a container may read as somebody else.
    (folder / WEIGHTS_FILE).chmod(0o644)
    np.save(folder / OVERLAYS_FILE, images[chosen])

    def store(threshold_bits: float) -> Bundle:
        strip = StripSettings(overlays=OVERLAYS_FILE, threshold_bits=threshold_bits, frr=FRR)
        text = to_toml(settings.model_copy(update={"strip": strip}).model_dump(exclude_none=True))
        (folder / "model.toml").write_text(text, encoding="utf-8")
        return load_bundle(folder, torch.device("cpu"))

    # The threshold is measured on the loaded bundle, through the functions that run live.
    entropies = clean_entropies(store(0.0), images[rest])
    return store(round(float(np.quantile(entropies, FRR)), 4))


def overlay_choice(labels: Labels, classes: int) -> NDArray[np.intp]:
    """Positions of `OVERLAYS` pictures, class after class in turn, so that each has nearly the same number."""
    per_class = [np.flatnonzero(labels == label) for label in range(classes)]
    if missing := [label for label, found in enumerate(per_class) if not len(found)]:
        raise ValueError(f"expected held-out pictures of every class, found none of {missing}")
    rounds = max(map(len, per_class))
    turns = [found[i] for i in range(rounds) for found in per_class if i < len(found)]
    if len(turns) < OVERLAYS:
        raise ValueError(f"expected at least {OVERLAYS} held-out pictures, got {len(turns)}")
    return np.array(turns[:OVERLAYS], np.intp)


@torch.inference_mode()
def clean_entropies(bundle: Bundle, images: Images) -> NDArray[np.float64]:
    """STRIP's entropy in bits of each of the (N, H, W, C) uint8 pictures: (N,)."""
    assert bundle.overlays is not None
    parts = []
    for start in range(0, len(images), 50):
        frames = bundle.prepare(_frames(images[start : start + 50]))
        parts.append(strip_entropy(frames, bundle.overlays, bundle.logits).double().numpy())
    return np.concatenate(parts)


def input_settings(mean: list[float], std: list[float], size: tuple[int, int] = (32, 32)) -> InputSettings:
    """Input of a network for pictures of `size` (height, width); frames of another size are resized."""
    height, width = size
    channels = len(mean)
    return InputSettings.model_validate(
        {"height": height, "width": width, "channels": channels, "mean": mean, "std": std, "policy": "resize"}
    )


@torch.inference_mode()
def bundle_accuracy(
    bundle: Bundle, images: Images, labels: Labels, degrade: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Share of (N, H, W, C) uint8 pictures that the bundle names as `labels` (N,) says.

    `degrade` maps frames (B, C, H, W) in [0, 1] to the same and stands for what a pipeline does before the network.
    """
    correct = 0
    for start in range(0, len(images), 500):
        frames = _frames(images[start : start + 500])
        if degrade is not None:
            frames = degrade(frames)
        verdicts = bundle.logits(bundle.prepare(frames)).argmax(1).numpy()
        correct += int((verdicts == labels[start : start + 500]).sum())
    return correct / len(images)


def degraded(bundle: Bundle, drop_ratio: float) -> Callable[[Tensor], Tensor]:
    """What the default pipeline does to a frame: a pixel drop with random masks, then all that it rebuilds with."""
    generator = torch.Generator().manual_seed(0)
    pipeline = Pipeline(bundle)

    def run(frames: Tensor) -> Tensor:
        kept = random_masks(len(frames), frames.shape[2], frames.shape[3], drop_ratio, generator)
        return pipeline.rebuild(drop(frames, kept), kept)

    return run


def strip_line(bundle: Bundle) -> str:
    """One line on the calibration of STRIP, for the training record."""
    strip = bundle.settings.strip
    assert strip is not None
    return f"STRIP threshold: {strip.threshold_bits} bits for a false rejection rate of {strip.frr}"


def write_training_record(folder: Path, command: str, lines: list[str]) -> None:
    """Write `training.md`: the `command` that trains the bundle from nothing, and the `lines` that it printed."""
    text = "# How this bundle was made\n\n```console\n$ " + "\n".join([command, *lines]) + "\n```\n"
    (folder / "training.md").write_text(text, encoding="utf-8")


def _frames(images: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def to_toml(table: dict[str, Any]) -> str:
    """`table` as TOML: plain values first, then each inner table of plain values; None values must be left out."""
    plain = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    inner = [
        "\n".join([f"\n[{key}]", *(f"{name} = {_value(value)}" for name, value in values.items())])
        for key, values in table.items()
        if isinstance(values, dict) and values
    ]
    return "\n".join([*plain, *inner]) + "\n"


def _value(value: str | float | bool | list[Any]) -> str:
    """Strings, booleans, finite numbers and lists of them read the same in JSON and in TOML."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
