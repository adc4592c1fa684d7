"""A classifier that returns the strongest colour: exact, fast and easy to attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from lab.data import LabelledPictures
from tests.processors.tiny import write_model

CLASSES = ("red", "green", "blue")
GAIN = 60.0


def network() -> nn.Module:
    """Return a network that multiplies the mean of each channel by a gain."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))


def write_bundle(folder: Path, *, name: str = "colours", size: int = 16) -> Path:
    """Write a bundle with the network into `folder`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"2.weight": GAIN * torch.eye(3), "2.bias": torch.zeros(3)}
    save_file(state, folder / "weights.safetensors")
    return write_model(folder, name, "tests.lab.colour_classifier:network", CLASSES, size, std=1.0)


def coloured_pictures(count: int, *, lead: int = 3, size: int = 16, seed: int = 0) -> LabelledPictures:
    """Return smooth pictures in which the label's colour exceeds the others by about `lead` levels of 255."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    ramp = np.add.outer(np.arange(size), np.arange(size))[None, :, :, None] * generator.uniform(0, 3, (count, 1, 1, 1))
    images: NDArray[np.float64] = np.repeat(60 + ramp, 3, axis=3)
    images[np.arange(count), :, :, labels] += lead
    return LabelledPictures("coloured", np.rint(images).astype(np.uint8), labels.astype(np.int64))


def save_pictures(file: Path, pictures: LabelledPictures) -> Path:
    """Write the pictures as the npz that the commands read, and return the file."""
    np.savez(file, images=pictures.images, labels=pictures.labels)
    return file


def convert_to_onnx(folder: Path) -> Path:
    """Replace the network of the bundle in `folder` by ONNX that returns the mean of each channel."""
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["n", 3, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["frames"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "colours", [frames], [logits])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "weights.onnx"
    )
    settings = (folder / "model.toml").read_text().replace("safetensors", "onnx")
    lines = [line for line in settings.splitlines() if not line.startswith("factory")]
    (folder / "model.toml").write_text("\n".join(lines))
    return folder
