"""From a trained network to a bundle folder: weights, STRIP overlays and threshold, `model.toml`, `training.md`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.data import LabelledPictures
from lab.masks import random_masks
from lab.strip.calibrate import OVERLAYS
from lab.strip.table import calibrate_bundle
from lab.training.recipe import Images, Labels
from processors.bundle import Bundle, BundleSettings, InputSettings, load_bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import ConfigError

Format = Literal["safetensors", "torchscript", "onnx", "tflite"]
FRR = 0.01
WEIGHTS_FILE = "weights.safetensors"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""Keys that TOML accepts without quotes."""


def write_bundle(
    folder: Path,
    network: nn.Module,
    settings: BundleSettings,
    images: Images,
    labels: Labels,
    calibration_limit: int = 2000,
) -> Bundle:
    """Write `network` as a bundle into `folder`, and return it as loaded from there.

    `settings` contains everything but the `strip` table. `images` (N, H, W, C) uint8 of the network's input size and
    `labels` (N,) are clean pictures held out of the training. The first ones of each class become the overlays. Up to
    `calibration_limit` others set the threshold for a false rejection rate of `FRR`. Raises ConfigError if a class is
    missing, or if fewer than 1 / FRR pictures are left besides the overlays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_network(network, folder / settings.weights, settings.format)
    for old in folder.glob("overlays*.npy"):
        old.unlink()
    text = to_toml(settings.model_copy(update={"strip": None, "drift": None}).model_dump(exclude_none=True))
    (folder / "model.toml").write_text(text, encoding="utf-8")
    count = max(OVERLAYS, len(settings.classes)) + calibration_limit
    clean = LabelledPictures("clean", images[:count], labels[:count].astype(np.int64))
    calibrate_bundle(folder, clean, frr=FRR, device=torch.device("cpu"), vouched=True)
    return load_bundle(folder, torch.device("cpu"), vouched=True)


def save_network(network: nn.Module, file: Path, kind: Format) -> None:
    """Write a network in the bundle format `kind`. Raises ConfigError for a format that cannot be written."""
    if kind == "torchscript":
        script = network if isinstance(network, torch.jit.ScriptModule) else torch.jit.script(network.eval())
        torch.jit.save(script, file)
    elif kind == "safetensors":
        # Tied weights share memory, which safetensors rejects: each name gets a copy.
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        save_file(state, file)
        # safetensors makes the file readable for its owner only; a container may run as another user.
        file.chmod(0o644)
    else:
        raise ConfigError(f"{file}: expected safetensors or torchscript as the format to write, got {kind}")


@torch.inference_mode()
def clean_entropies(bundle: Bundle, images: Images) -> NDArray[np.float64]:
    """Return STRIP's entropy in bits of each of the whole (N, H, W, C) uint8 pictures, over all overlays: (N,)."""
    pipeline = Pipeline(bundle)
    parts = []
    for start in range(0, len(images), 50):
        inputs = pipeline.probe_input(_frames(images[start : start + 50]))
        parts.append(pipeline.strip(inputs, sequential=False).entropy_bits.double().cpu().numpy())
    return np.concatenate(parts)


def input_settings(mean: list[float], std: list[float], size: tuple[int, int] = (32, 32)) -> InputSettings:
    """Return the input settings of a network for pictures of `size` (height, width). Other frames are resized."""
    height, width = size
    channels = len(mean)
    return InputSettings.model_validate(
        {"height": height, "width": width, "channels": channels, "mean": mean, "std": std, "policy": "resize"}
    )


@torch.inference_mode()
def bundle_accuracy(
    bundle: Bundle, images: Images, labels: Labels, degrade: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Return the bundle's accuracy on (N, H, W, C) uint8 pictures with `labels` (N,).

    `degrade` maps frames (B, C, H, W) in [0, 1] to the same, in place of the pipeline before the network.
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
    """Return the default pipeline's effect on a frame: a pixel drop with random masks, then the reconstruction."""
    generator = torch.Generator().manual_seed(0)
    pipeline = Pipeline(bundle)

    def run(frames: Tensor) -> Tensor:
        kept = random_masks(len(frames), frames.shape[2], frames.shape[3], drop_ratio, generator)
        return pipeline.rebuild(drop(frames, kept), kept)

    return run


def strip_line(bundle: Bundle) -> str:
    """Return one line on the calibration of STRIP, for the training record."""
    strip = bundle.settings.strip
    assert strip is not None
    return f"STRIP threshold: {strip.threshold_bits} bits for a false rejection rate of {strip.frr}"


def write_training_record(folder: Path, command: str, lines: list[str]) -> None:
    """Write `training.md`: the `command` that trains the bundle from scratch, and its printed `lines`."""
    text = "# How this bundle was made\n\n```console\n$ " + "\n".join([command, *lines]) + "\n```\n"
    (folder / "training.md").write_text(text, encoding="utf-8")


def _frames(images: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def to_toml(table: dict[str, Any]) -> str:
    """Return `table` as TOML: plain values first, then inner tables and lists of tables. None is not allowed."""
    return "\n".join(_table_lines(table, "")) + "\n"


def _table_lines(table: dict[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    inner: list[str] = []
    for key, value in table.items():
        key = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
        if isinstance(value, dict):
            # An empty table at the top level equals the settings' default; further inside it may be an argument.
            if value or prefix:
                inner += ["", f"[{prefix}{key}]", *_table_lines(value, f"{prefix}{key}.")]
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for each in value:
                inner += ["", f"[[{prefix}{key}]]", *_table_lines(each, f"{prefix}{key}.")]
        elif value != [] or prefix:
            lines.append(f"{key} = {_value(value)}")
    return lines + inner


def _value(value: str | float | bool | list[Any]) -> str:
    """Return a value as TOML: strings, booleans, finite numbers and lists of them have the same form in JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
