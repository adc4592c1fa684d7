"""Small networks as users bring them, as ONNX, TensorFlow Lite and torch.

Each returns which of three colours is the strongest in a picture.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import flatbuffers  # type: ignore[import-untyped]  # it ships no types
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
    """Return weights (3, 3) and bias (3,) of the layer after the mean of each channel.

    The layer undoes the normalisation of ImageNet: under another one, another output is the largest. `order[k]` is the
    colour of output k.
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
    half: bool = False,
) -> Path:
    """Write the network as ONNX and return the file.

    `last` puts the channels last, and `half` uses float16. `flatten` reshapes to the fixed batch, by a constant shape
    (`written`) or a computed one (`worked out`).
    """
    matrix, bias = weights(order)
    if channels == 1:
        matrix, bias = np.array([[8.0], [-8.0]], np.float32), np.zeros(2, np.float32)
    number, result_kind = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
    kind = result_kind if half else kind
    shape = [batch, *sides, channels] if last else [batch, channels, *sides]
    nodes = [
        helper.make_node("ReduceMean", ["frames"], ["means"], axes=[1, 2] if last else [2, 3], keepdims=0),
        helper.make_node("Gemm", ["shaped" if flatten else "means", "matrix", "bias"], ["logits"], transB=1),
    ]
    made = [
        numpy_helper.from_array(matrix.astype(number), "matrix"),
        numpy_helper.from_array(bias.astype(number), "bias"),
    ]
    if flatten:
        nodes.insert(1, helper.make_node("Reshape", ["means", "to" if flatten == "written" else "found"], ["shaped"]))
        nodes.insert(1, helper.make_node("Identity", ["to"], ["found"]))
        made.append(numpy_helper.from_array(np.array([batch, channels], np.int64), "to"))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=1))
    result = helper.make_tensor_value_info("shares" if softmax else "logits", result_kind, [batch, len(bias)])
    outputs = [result]
    if features_first:
        nodes.append(helper.make_node("Identity", ["frames"], ["features"]))
        outputs = [helper.make_tensor_value_info("features", kind, shape), result]
    graph = helper.make_graph(nodes, "colours", [helper.make_tensor_value_info("frames", kind, shape)], outputs, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def append_onnx(
    file: Path, nodes: list[onnx.NodeProto], outputs: dict[str, tuple[int, list[int | str]]], *made: onnx.TensorProto
) -> Path:
    """Append nodes to the graph in `file` and replace its outputs. `outputs` gives kind and shape by name."""
    model = onnx.load(file)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(made)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, *form) for name, form in outputs.items())
    onnx.save(model, file)
    return file


def write_tflite(
    file: Path,
    *,
    channels: int = 3,
    flatten: bool = False,
    signature: tuple[int, ...] | None = None,
    relative: bool = False,
) -> Path:
    """Write the network as TensorFlow Lite, by its schema, and return the file.

    `flatten` fixes one picture by a shape in the graph. `signature` are the first dimensions in the shape signatures of
    the tensors, which Keras converters write. `relative` divides the output by the brightest value of the whole input,
    at least 2.
    """
    matrix, bias = weights()
    made = flatbuffers.Builder(1024)
    constants = [np.array([1, 2], np.int32), matrix[:, :channels], bias, np.array([1, channels], np.int32)]
    constants += [np.array([0, 1, 2, 3], np.int32), np.array(2, np.float32)]
    data = [made.CreateNumpyVector(np.frombuffer(each.tobytes(), np.uint8)) for each in constants]
    buffers = [_table(made, {}), *(_table(made, {0: each}) for each in data)]
    shapes = [[1, SIDE, SIDE, channels], [2], list(constants[1].shape), [3], [2], [1, channels], [1, channels], [1, 3]]
    shapes += [[4], [], [], [], [1, 3]]
    # Buffer 0 stands for a computed value. The kinds are float32 (0) and int32 (2).
    stated = zip(shapes, (0, 2, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0), (0, 1, 2, 3, 4, 0, 0, 0, 5, 6, 0, 0, 0), strict=True)
    tensors = []
    for i, (shape, kind, place) in enumerate(stated):
        fields = {0: _numbers(made, shape), 1: (kind, "Int8"), 2: (place, "Uint32"), 3: made.CreateString(f"t{i}")}
        if signature is not None and place == 0:
            fields[7] = _numbers(made, [*signature, *shape[len(signature) :]][: len(shape)])
        tensors.append(_table(made, fields))
    # MEAN, RESHAPE, FULLY_CONNECTED, REDUCE_MAX, MAXIMUM and DIV: operator code, kind of options, inputs and output.
    steps = [(0, 27, [0, 1], 5), (1, 17, [5, 4], 6), (2, 8, [6 if flatten else 5, 2, 3], 7)]
    steps = steps if flatten else [steps[0], steps[2]]
    steps += [(3, 27, [0, 8], 10), (4, 39, [10, 9], 11), (5, 29, [7, 11], 12)] if relative else []
    operators = [
        _table(
            made,
            {0: (code, "Uint32"), 1: _numbers(made, inputs), 2: _numbers(made, [output]), 3: (options, "Uint8"),
             4: _table(made, {})},
        )
        for code, options, inputs, output in steps
    ]  # fmt: skip
    codes = [_table(made, {0: (code, "Int8"), 2: (1, "Int32"), 3: (code, "Int32")}) for code in (40, 22, 9, 82, 55, 42)]
    graph = _table(
        made,
        {
            0: _tables(made, tensors),
            1: _numbers(made, [0]),
            2: _numbers(made, [steps[-1][3]]),
            3: _tables(made, operators),
        },
    )
    model: dict[int, int | tuple[int, str]] = {
        0: (3, "Uint32"),
        1: _tables(made, codes),
        2: _tables(made, [graph]),
        4: _tables(made, buffers),
    }
    made.Finish(_table(made, model), b"TFL3")
    file.write_bytes(bytes(made.Output()))
    return file


def _table(made: flatbuffers.Builder, fields: dict[int, int | tuple[int, str]]) -> int:
    """Write a table and return its offset. A field is the offset of another value, or a number with its kind."""
    made.StartObject(8)
    for slot, value in fields.items():
        if isinstance(value, tuple):
            # Values equal to the default would be left out; no field has the value 100.
            getattr(made, f"Prepend{value[1]}Slot")(slot, value[0], 100)
        else:
            made.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(made.EndObject())


def _numbers(made: flatbuffers.Builder, values: list[int]) -> int:
    return int(made.CreateNumpyVector(np.array(values, np.int32)))


def _tables(made: flatbuffers.Builder, places: list[int]) -> int:
    made.StartVector(4, len(places), 4)
    for place in reversed(places):
        made.PrependUOffsetTRelative(place)
    return int(made.EndVector())


class Colours(nn.Module):
    """The network of `write_onnx` in torch."""

    def __init__(self) -> None:
        super().__init__()
        matrix, bias = weights()
        self.fc = nn.Linear(3, 3)
        self.fc.weight.data, self.fc.bias.data = torch.from_numpy(matrix), torch.from_numpy(bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def picture(colour: int, seed: int, size: tuple[int, int] = (20, 24)) -> NDArray[np.uint8]:
    """Return a nearly grey picture (H, W, 3) in which one colour is a little stronger than the others."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(70, 150, (*size, 1)) + generator.integers(-20, 20, (*size, 3))
    pixels[..., colour] += 9
    return pixels.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, each: int = 16, named: bool = True) -> Path:
    """Write `each` pictures of every colour to `folder`, with `named` in a sub-folder for each colour."""
    for number, colour in enumerate(COLOURS):
        inside = folder / colour if named else folder
        inside.mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (inside / f"{colour}-{index}.png").write_bytes(_as_png(number, 100 * number + index))
    return folder


@cache
def _as_png(colour: int, seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(colour, seed)).save(file, "PNG")
    return file.getvalue()


def write_names(file: Path, names: tuple[str, ...] = COLOURS) -> Path:
    """Write the class names to `file`, one a line."""
    file.write_text("\n".join(names) + "\n")
    return file
