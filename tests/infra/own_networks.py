"""Networks as people bring them, small and right: which of three colours a picture has most of, as ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

COLOURS = ("red", "green", "blue")
SIDE = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights(order: tuple[int, ...] = (0, 1, 2), gain: float = 9.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the layer behind the mean of each channel of a picture normalised as for ImageNet: it undoes that.

    `order[k]` is the colour of output k. Under another normalisation the largest output is another one.
    """
    matrix = gain * np.diag(STD).astype(np.float32)[list(order)]
    bias = gain * np.array(MEAN, np.float32)[list(order)]
    return matrix, bias


def write_onnx(
    file: Path,
    *,
    batch: int | str = "batch",
    last: bool = False,
    softmax: bool = False,
    order: tuple[int, ...] = (0, 1, 2),
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    features_first: bool = False,
    channels: int = 3,
    flatten: str = "",
) -> Path:
    """The file. `last`: channels last; `flatten`: reshaped to the fixed batch, by a shape `written` or `worked out`."""
    matrix, bias = weights(order)
    if channels == 1:
        matrix, bias = np.array([[8.0], [-8.0]], np.float32), np.zeros(2, np.float32)
    shape = [batch, *sides, channels] if last else [batch, channels, *sides]
    nodes = [
        helper.make_node("ReduceMean", ["frames"], ["means"], axes=[1, 2] if last else [2, 3], keepdims=0),
        helper.make_node("Gemm", ["shaped" if flatten else "means", "matrix", "bias"], ["logits"], transB=1),
    ]
    made = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(bias, "bias")]
    if flatten:
        nodes.insert(1, helper.make_node("Reshape", ["means", "to" if flatten == "written" else "found"], ["shaped"]))
        nodes.insert(1, helper.make_node("Identity", ["to"], ["found"]))
        made.append(numpy_helper.from_array(np.array([batch, channels], np.int64), "to"))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=1))
    result = helper.make_tensor_value_info("shares" if softmax else "logits", TensorProto.FLOAT, [batch, len(bias)])
    outputs = [result]
    if features_first:
        nodes.append(helper.make_node("Identity", ["frames"], ["features"]))
        outputs = [helper.make_tensor_value_info("features", kind, shape), result]
    graph = helper.make_graph(nodes, "colours", [helper.make_tensor_value_info("frames", kind, shape)], outputs, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


class Colours(nn.Module):
    """The same in torch."""

    def __init__(self) -> None:
        super().__init__()
        matrix, bias = weights()
        self.fc = nn.Linear(3, 3)
        self.fc.weight.data, self.fc.bias.data = torch.from_numpy(matrix), torch.from_numpy(bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def picture(colour: int, seed: int, size: tuple[int, int] = (20, 24)) -> NDArray[np.uint8]:
    """(H, W, 3) of nearly one grey, with a little more of one colour than of the others."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(70, 150, (*size, 1)) + generator.integers(-20, 20, (*size, 3))
    pixels[..., colour] += 9
    return pixels.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, each: int = 16, named: bool = True) -> Path:
    """The folder: so many pictures of every colour, in subfolders named by it or not."""
    for number, colour in enumerate(COLOURS):
        inside = folder / colour if named else folder
        inside.mkdir(parents=True, exist_ok=True)
        for index in range(each):
            Image.fromarray(picture(number, 100 * number + index)).save(inside / f"{colour}-{index}.png")
    return folder


def write_names(file: Path, names: tuple[str, ...] = COLOURS) -> Path:
    """A line each."""
    file.write_text("\n".join(names) + "\n")
    return file
