"""An ONNX classifier for a bundle: one file, one picture input (N, C, H, W), the classes (N, classes) as first output.

The graph's results stay the same, and the leftovers of exporters are removed. Weights in files next to the graph move
into it (`infra.bundling.external_data`). A graph with channels last gets a `Transpose` in front, and then takes
channels first. An output (N, classes, 1, 1) gets a `Flatten` behind it. A `QuantizeLinear` at the end is
removed. A fixed batch size is removed if the results stay the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infra.bundling.batches import example_pictures, judges_singly
from infra.bundling.bundle_request import MOST_SIDE
from infra.bundling.external_data import take_in
from processors.bundle.limits import check_size
from schemas.errors import BundleError, first_line

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_CHANNELS: Final = (1, 3)
_INPUT: Final = "pictures"
_BATCH: Final = "batch"


@dataclass(frozen=True)
class Graph:
    """The result of `read_graph`: the model to save, with its input and output."""

    model: onnx.ModelProto
    channels: int
    height: int
    width: int
    classes: int
    notes: tuple[str, ...]
    """Changes to the graph, one line each."""


def read_graph(file: Path, size: tuple[int, int] | None, classes: int | None = None) -> Graph:
    """Read the classifier in `file`; `size` (height, width) is for graphs that leave the sides open.

    Of several outputs, the first one with `classes` columns gives the classes.

    Raises BundleError in one line for a file that is no ONNX, lacks a single picture input, or has no (N, classes)
    output.
    """
    model = _load(file)
    notes = [f"its weights in {name} came into the bundle" for name in take_in(model, file)]
    taken = _input(model, file)
    _leave_open(model)
    shape = [each.dim_value or None for each in taken.type.tensor_type.shape.dim]
    if len(shape) != 4:
        raise BundleError(
            f"{file.name}: expected an input (N, C, H, W), got {taken.name} with {len(shape)} axes. Export "
            "the network again."
        )
    if shape[1] not in _CHANNELS and shape[3] in _CHANNELS:
        _channels_first(model, taken)
        shape = [shape[0], shape[3], shape[1], shape[2]]
        notes.append("its input has the channels last: the graph now takes them first")
    if shape[1] not in _CHANNELS:
        raise BundleError(
            f"{file.name}: expected an input of 1 or 3 channels, got {taken.name} {_shown(shape)}. Export the "
            "network again."
        )
    height, width = _sides(shape, size, file)
    channels = int(shape[1])
    example = example_pictures(channels, height, width).numpy()
    number, result = _class_output(model, example, file, classes)
    found = result.shape
    if result.dtype.kind != "f":
        _leave_unquantised(model, number, file)
        notes.append(f"its output is quantised to {result.dtype}: the graph now leaves it unquantised")
    if len(found) > 2:
        _flatten(model, number, max(found[1:]))
        notes.append(f"its output is {_shown([None, *found[1:]])}: the graph now flattens it")
    if number:
        first = model.graph.output[number]
        others = [each for each in model.graph.output if each.name != first.name]
        del model.graph.output[:]
        model.graph.output.extend([first, *others])
        notes.append(f"of its {1 + len(others)} outputs, {first.name} gives the classes")
    if shape[0] is not None:
        free = _free_batch(model, example)
        many = f"{shape[0]} picture{'s' * (shape[0] > 1)} at a time"
        model = free or model
        notes.append(
            f"it takes {many} and no other number: slower than it could be"
            if free is None
            else f"it was exported for {many}: the graph now takes any number"
        )
    return Graph(model, channels, height, width, max(found[1:]), tuple(notes))


def save_graph(graph: Graph, file: Path) -> None:
    """Write the graph with its weights as one file. Raises BundleError if the graph is too large for one file."""
    import onnx

    try:
        onnx.save_model(graph.model, file, save_as_external_data=False)
    except ValueError as error:
        raise BundleError(
            f"{file.name}: expected a graph of at most 2 GiB, got more: {first_line(error)}. Choose a smaller network."
        ) from None


def fix_batch(model: onnx.ModelProto) -> None:
    """Let a graph that accepts any number of pictures take one at a time."""
    (taken,) = _inputs(model)
    first = taken.type.tensor_type.shape.dim[0]
    name = first.dim_param
    first.dim_value = 1
    for each in model.graph.output:
        dims = each.type.tensor_type.shape.dim
        if name and dims and dims[0].dim_param == name:
            dims[0].dim_value = 1
    # Shapes inferred for the open batch would contradict it.
    del model.graph.value_info[:]


def _load(file: Path) -> onnx.ModelProto:
    import onnx

    try:
        check_size(file)
        return onnx.load_model(file, load_external_data=False)
    except FileNotFoundError:
        raise BundleError(f"--onnx: expected an existing file, got {file}. Correct the path.") from None
    except OSError as error:
        raise BundleError(
            f"{file.name}: expected a readable file, got {error.strerror or first_line(error)}. Correct the "
            "path or its rights."
        ) from None
    except Exception as error:  # protobuf's and onnx's own, which share no base
        raise BundleError(
            f"{file.name}: expected an ONNX graph, got {first_line(error)}. Export the network again."
        ) from None


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in weights]


def _input(model: onnx.ModelProto, file: Path) -> onnx.ValueInfoProto:
    from onnx import TensorProto

    inputs = _inputs(model)
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise BundleError(f"{file.name}: expected one input, the pictures, got {names}. Export the network again.")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        got = TensorProto.DataType.Name(kind).lower()
        raise BundleError(
            f"{file.name}: expected an input of float32 or float16 pictures, got {inputs[0].name} of {got}. "
            "Export the network with such an input."
        )
    return inputs[0]


def _leave_open(model: onnx.ModelProto) -> None:
    """Leave each side open that is not above 0: some exporters write a free one as 0 or −1."""
    for each in (*_inputs(model), *model.graph.output):
        for side in each.type.tensor_type.shape.dim:
            if side.dim_value <= 0:
                side.ClearField("dim_value")


def check_stated(size: tuple[int, int] | None, stated: tuple[int, int], file: Path) -> None:
    """Check that a given (height, width) is that of the file's input. Raises BundleError."""
    if size is not None and size != stated:
        raise BundleError(
            f"--size: expected {stated[1]}x{stated[0]}, the input of {file.name}, got {size[1]}x{size[0]}. Correct "
            "--size."
        )


def _sides(shape: list[int | None], size: tuple[int, int] | None, file: Path) -> tuple[int, int]:
    if shape[2] is not None and shape[3] is not None:
        height, width = shape[2], shape[3]
        check_stated(size, (height, width), file)
        if max(height, width) > MOST_SIDE:
            raise BundleError(
                f"{file.name}: expected pictures of at most {MOST_SIDE}x{MOST_SIDE}, got {width}x{height}. Choose "
                "another network."
            )
        return height, width
    if size is None:
        raise BundleError(
            f"--size is missing: {file.name} accepts pictures of any size. Give --size WIDTHxHEIGHT of the "
            "training pictures."
        )
    return size


def _shown(shape: list[int | None]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def _channels_first(model: onnx.ModelProto, taken: onnx.ValueInfoProto) -> None:
    """Put a `Transpose` before an input of (N, H, W, C)."""
    from onnx import helper

    dims = taken.type.tensor_type.shape.dim
    sides = [each.dim_value or each.dim_param or None for each in (dims[0], dims[3], dims[1], dims[2])]
    name = _INPUT if taken.name != _INPUT else f"{_INPUT}_first"
    fresh = helper.make_tensor_value_info(name, taken.type.tensor_type.elem_type, sides)
    turned = helper.make_node("Transpose", [name], [taken.name], perm=[0, 2, 3, 1])
    others = [each for each in model.graph.input if each.name != taken.name]
    nodes = list(model.graph.node)
    del model.graph.input[:], model.graph.node[:]
    model.graph.input.extend([fresh, *others])
    model.graph.node.extend([turned, *nodes])


def _class_output(
    model: onnx.ModelProto, example: NDArray[np.float32], file: Path, classes: int | None
) -> tuple[int, NDArray[Any]]:
    """Return the index and the values of the output (N, classes), which may have more axes of one element.

    Of several such outputs, it is the first one with as many columns as `classes`.
    """
    batch = _inputs(model)[0].type.tensor_type.shape.dim[0].dim_value or len(example)
    pictures = np.resize(example, (batch, *example.shape[1:]))
    try:
        session = _session(model)
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BundleError(
            f"{file.name}: expected an ONNX graph that onnxruntime runs, got {first_line(error)}. Export it with an "
            "older opset."
        ) from None
    try:
        results = _run(session, pictures)
    except Exception as error:  # the same
        raise BundleError(
            f"{file.name}: expected a graph that accepts {pictures.shape}, got {first_line(error)}. Correct --size, "
            "or export the network again."
        ) from None
    columns = {number: max(each.shape[1:]) for number, each in enumerate(results) if _has_columns(each, batch)}
    if not columns:
        got = ", ".join(str(getattr(result, "shape", type(result).__name__)) for result in results)
        raise BundleError(
            f"{file.name}: expected a classifier, whose output is (N, classes), got {got} for {batch} "
            "pictures. Choose another network."
        )
    fitting = [number for number, count in columns.items() if len(columns) == 1 or classes in (None, count)]
    if not fitting:
        got = ", ".join(f"{model.graph.output[number].name} of {count}" for number, count in columns.items())
        raise BundleError(
            f"{file.name}: expected an output of {classes} columns, as many as --classes has names, got {got}. "
            "Correct --classes."
        )
    return fitting[0], results[fitting[0]]


def _has_columns(result: Any, batch: int) -> bool:
    """Return whether an output is (N, classes), with further axes of one element or without.

    Integers of more than 8 bits are the numbers of classes, and smaller ones may be quantised scores.
    """
    if not isinstance(result, np.ndarray) or result.ndim < 2 or len(result) != batch:
        return False
    scores = result.dtype.kind == "f" or result.dtype in (np.int8, np.uint8)
    return scores and max(result.shape[1:]) == math.prod(result.shape[1:]) >= 2


def _leave_unquantised(model: onnx.ModelProto, number: int, file: Path) -> None:
    """Let the input of the `QuantizeLinear` that makes an output be the output instead.

    Raises BundleError for another output: nothing in the graph states the scale of its numbers.
    """
    from onnx import TensorProto, helper

    output = model.graph.output[number]
    source = next((node for node in model.graph.node if output.name in node.output), None)
    if source is None or source.op_type != "QuantizeLinear":
        raise BundleError(
            f"{file.name}: expected scores of float32 or float16, or of a QuantizeLinear, got 8-bit integers in "
            f"{output.name}{'' if source is None else f' of {source.op_type}'}. Export the network with such an output."
        )
    # The scale has the type of the numbers that it divides.
    kind = {each.name: each.data_type for each in model.graph.initializer}.get(source.input[1], TensorProto.FLOAT)
    name = f"{output.name}_unquantised"
    model.graph.node.append(helper.make_node("Identity", [source.input[0]], [name]))
    if not any(output.name in node.input for node in model.graph.node):
        model.graph.node.remove(source)
    output.name, output.type.tensor_type.elem_type = name, kind


def _flatten(model: onnx.ModelProto, number: int, classes: int) -> None:
    """Put a `Flatten` behind an output, so that it is (N, classes)."""
    from onnx import helper

    output = model.graph.output[number]
    name = f"{output.name}_flat"
    tensor = output.type.tensor_type
    batch = tensor.shape.dim[0] if tensor.shape.dim else None
    sides = [(batch.dim_value or batch.dim_param or None) if batch else None, classes]
    model.graph.node.append(helper.make_node("Flatten", [output.name], [name]))
    output.CopyFrom(helper.make_tensor_value_info(name, tensor.elem_type, sides))


def _free_batch(model: onnx.ModelProto, example: NDArray[np.float32]) -> onnx.ModelProto | None:
    """Return the model for any batch size, if its results equal those for single pictures; else None."""
    import onnx

    free = onnx.ModelProto()
    free.CopyFrom(model)
    fixed = _inputs(model)[0].type.tensor_type.shape.dim[0].dim_value
    for each in (*_inputs(free), *free.graph.output):
        dims = each.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = _BATCH
    # Shapes inferred for the fixed batch would contradict it.
    del free.graph.value_info[:]
    _free_shapes(free, fixed)
    try:
        any_number, fixed_number = _session(free), _session(model)

        def together(pictures: Tensor) -> Tensor:
            return torch.from_numpy(_run(any_number, pictures.numpy())[0])

        def alone(pictures: Tensor) -> Tensor:
            filled = [np.resize(each[None], (fixed, *each.shape)) for each in pictures.numpy()]
            return torch.from_numpy(np.concatenate([_run(fixed_number, each)[0][:1] for each in filled]))

        return free if judges_singly(together, alone, torch.from_numpy(example)) else None
    except Exception:  # any error of onnxruntime about a reshape to the fixed batch
        return None


def _free_shapes(model: onnx.ModelProto, fixed: int) -> None:
    """Make each `Reshape` to a constant shape that begins with the fixed batch infer that number instead.

    Exporters write the shape as a constant when the network flattens. Its first number is only probably the batch: the
    caller checks the results.
    """
    from onnx import numpy_helper

    written = {each.name: each for each in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        # Up to opset 4, the shape is an attribute.
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in written:
            continue
        shape = numpy_helper.to_array(written[node.input[1]]).copy()
        if len(shape) > 1 and shape[0] == fixed and (shape[1:] > 0).all():
            shape[0] = -1
            own = numpy_helper.from_array(shape, f"{node.input[1]}_of_any_batch_{number}")
            model.graph.initializer.append(own)
            node.input[1] = own.name


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, pictures: NDArray[np.float32]) -> list[Any]:
    taken = session.get_inputs()[0]
    kind = np.float16 if taken.type == "tensor(float16)" else np.float32
    results: list[Any] = session.run(None, {taken.name: pictures.astype(kind)})
    return results
