"""An ONNX classifier for a bundle: one file, one picture input (N, C, H, W), the classes as first output.

The graph's results stay the same, and the leftovers of exporters are removed. Weights in files next to the graph move
into it (`infra.bundling.external_data`). A graph with channels last gets a `Transpose` in front, and then takes
channels first. A fixed batch size is removed if the results stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.bundling.external_data import take_in
from processors.bundle.limits import check_size
from schemas.errors import BundleError, first_line

if TYPE_CHECKING:
    import onnx

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


def read_graph(file: Path, size: tuple[int, int] | None) -> Graph:
    """Read the classifier in `file`; `size` (height, width) is for graphs that leave the sides open.

    Raises BundleError in one line for a file that is no ONNX, lacks a single picture input, or has no (N, classes)
    output.
    """
    model = _load(file)
    notes = [f"its weights in {name} came into the bundle" for name in take_in(model, file)]
    taken = _input(model, file)
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
    example = np.random.default_rng(0).random((3, channels, height, width), np.float32)
    number, classes = _class_output(model, example, file)
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
    return Graph(model, channels, height, width, classes, tuple(notes))


def save_graph(graph: Graph, file: Path) -> None:
    """Write the graph with its weights as one file. Raises BundleError if the graph is too large for one file."""
    import onnx

    try:
        onnx.save_model(graph.model, file, save_as_external_data=False)
    except ValueError as error:
        raise BundleError(
            f"{file.name}: expected a graph of at most 2 GiB, got more: {first_line(error)}. Choose a smaller network."
        ) from None


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
            f"{file.name}: expected an input of floating-point pictures, got {inputs[0].name} of {got}. "
            "Export the network without the conversion of bytes."
        )
    return inputs[0]


def _sides(shape: list[int | None], size: tuple[int, int] | None, file: Path) -> tuple[int, int]:
    stated = shape[2], shape[3]
    if None not in stated:
        height, width = int(stated[0] or 0), int(stated[1] or 0)
        if size is not None and size != (height, width):
            raise BundleError(
                f"--size: expected {width}x{height}, the input of {file.name}, got {size[1]}x{size[0]}. Correct --size."
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


def _class_output(model: onnx.ModelProto, example: NDArray[np.float32], file: Path) -> tuple[int, int]:
    """Return the index of the first output of shape (N, classes), and its number of classes."""
    batch = _inputs(model)[0].type.tensor_type.shape.dim[0].dim_value or len(example)
    pictures = np.resize(example, (batch, *example.shape[1:]))
    try:
        results = _run(model, pictures)
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BundleError(
            f"{file.name}: expected a graph that accepts {pictures.shape}, got {first_line(error)}. Correct --size."
        ) from None
    for number, result in enumerate(results):
        if getattr(result, "ndim", 0) == 2 and result.shape[0] == batch and result.shape[1] >= 2:
            return number, result.shape[1]
    got = ", ".join(str(getattr(result, "shape", type(result).__name__)) for result in results)
    raise BundleError(
        f"{file.name}: expected a classifier, whose output is (N, classes), got {got} for {batch} "
        "pictures. Choose another network."
    )


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
        together = _run(free, example)[0]
        parts = [_run(model, np.resize(each[None], (fixed, *each.shape)))[0][:1] for each in example]
    except Exception:  # any error of onnxruntime about a reshape to the fixed batch
        return None
    single = np.concatenate(parts)
    same = together.shape == single.shape and np.allclose(together, single, rtol=1e-3, atol=1e-4)
    return free if same else None


def _free_shapes(model: onnx.ModelProto, fixed: int) -> None:
    """Make each `Reshape` to a constant shape that begins with the fixed batch infer that number instead.

    Exporters write the shape as a constant when the network flattens. Its first number is only probably the batch: the
    caller checks the results.
    """
    from onnx import numpy_helper

    written = {each.name: each for each in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in written:
            continue
        shape = numpy_helper.to_array(written[node.input[1]]).copy()
        if len(shape) > 1 and shape[0] == fixed and (shape[1:] > 0).all():
            shape[0] = -1
            own = numpy_helper.from_array(shape, f"{node.input[1]}_of_any_batch_{number}")
            model.graph.initializer.append(own)
            node.input[1] = own.name


def _run(model: onnx.ModelProto, pictures: NDArray[np.float32]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    kind = np.float16 if taken.type == "tensor(float16)" else np.float32
    results: list[Any] = session.run(None, {taken.name: pictures.astype(kind)})
    return results
