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

Format = Literal["safetensors", "torchscript", "onnx"]
FRR = 0.01
WEIGHTS_FILE = "weights.safetensors"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""Keys that TOML takes without quotes."""


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
    are clean pictures that took no part in the training: the first ones of each class become the overlays, and with up
    to `calibration_limit` others they set the threshold for a false rejection rate of `FRR`. Raises ConfigError when a
    class is missing or fewer than 1 / FRR pictures are left beside the overlays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_network(network, folder / settings.weights, settings.format)
    for old in folder.glob("overlays*.npy"):
        old.unlink()
    text = to_toml(settings.model_copy(update={"strip": None}).model_dump(exclude_none=True))
    (folder / "model.toml").write_text(text, encoding="utf-8")
    count = max(OVERLAYS, len(settings.classes)) + calibration_limit
    clean = LabelledPictures("clean", images[:count], labels[:count].astype(np.int64))
    calibrate_bundle(folder, clean, frr=FRR, device=torch.device("cpu"), vouched=True)
    return load_bundle(folder, torch.device("cpu"), vouched=True)


def save_network(network: nn.Module, file: Path, kind: Format) -> None:
    """Write a network as a bundle of the format `kind` holds it; ConfigError for one that nothing here writes."""
    if kind == "torchscript":
        script = network if isinstance(network, torch.jit.ScriptModule) else torch.jit.script(network.eval())
        torch.jit.save(script, file)
    elif kind == "safetensors":
        # Tied weights share memory, which safetensors refuses: each name gets its own.
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        save_file(state, file)
        # safetensors writes for the owner alone; a container may read as somebody else.
        file.chmod(0o644)
    else:
        raise ConfigError(f"{file}: expected safetensors or torchscript to write, got {kind}")


@torch.inference_mode()
def clean_entropies(bundle: Bundle, images: Images) -> NDArray[np.float64]:
    """STRIP's entropy in bits of each of the whole (N, H, W, C) uint8 pictures, over all overlays: (N,)."""
    pipeline = Pipeline(bundle)
    parts = []
    for start in range(0, len(images), 50):
        inputs = pipeline.probe_input(_frames(images[start : start + 50]))
        parts.append(pipeline.strip(inputs, sequential=False).entropy_bits.double().cpu().numpy())
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
    """`table` as TOML: plain values first, then inner tables and lists of tables; None values must be left out."""
    return "\n".join(_table_lines(table, "")) + "\n"


def _table_lines(table: dict[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    inner: list[str] = []
    for key, value in table.items():
        key = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
        if isinstance(value, dict):
            # Nothing at the top is what the settings take for granted; further in it may be an argument.
            if value or prefix:
                inner += ["", f"[{prefix}{key}]", *_table_lines(value, f"{prefix}{key}.")]
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for each in value:
                inner += ["", f"[[{prefix}{key}]]", *_table_lines(each, f"{prefix}{key}.")]
        elif value != [] or prefix:
            lines.append(f"{key} = {_value(value)}")
    return lines + inner


def _value(value: str | float | bool | list[Any]) -> str:
    """Strings, booleans, finite numbers and lists of them read the same in JSON and in TOML."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
