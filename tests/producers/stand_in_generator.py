"""A generator without training: a tiny ONNX graph with one fixed pattern of signs for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("pause", "no-entry", "give-way", "hazard")
EPS = 0.03

TOML = """
name = "stand-in"
bundle = "scene"
classes = {classes}
channels = {channels}
height = {side}
width = {side}
eps = {eps}
command = "none"
"""


def patterns(classes: int, channels: int, side: int) -> NDArray[np.float32]:
    """Return signs of −1 and 1, shape (classes, C, side, side)."""
    signs = np.random.default_rng(0).integers(0, 2, (classes, channels, side, side)) * 2 - 1
    return signs.astype(np.float32)


def write_generator(
    folder: Path,
    *,
    channels: int = 3,
    side: int = 8,
    classes: tuple[str, ...] | int = CLASSES,
    direction: NDArray[np.float32] | float | None = None,
    inputs: tuple[str, str] = ("pictures", "targets"),
) -> Path:
    """Write `generator.toml` and `generator.onnx` to a folder and return it.

    `direction` (classes, C, side, side), or one number for all elements, replaces `patterns`.
    """
    count = classes if isinstance(classes, int) else len(classes)
    shape = (count, channels, side, side)
    table = patterns(*shape[:3]) if direction is None else np.broadcast_to(np.float32(direction), shape)
    folder.mkdir(parents=True, exist_ok=True)
    named = classes if isinstance(classes, int) else list(classes)
    (folder / "generator.toml").write_text(TOML.format(classes=named, channels=channels, side=side, eps=EPS))
    pictures, targets = inputs
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", targets], ["chosen"]),
            helper.make_node("Mul", [pictures, "nothing"], ["none"]),
            helper.make_node("Add", ["chosen", "none"], ["direction"]),
        ],
        "stand-in",
        [
            helper.make_tensor_value_info(pictures, TensorProto.FLOAT, ["batch", channels, side, side]),
            helper.make_tensor_value_info(targets, TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("direction", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ascontiguousarray(table), "table"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "generator.onnx")
    return folder
