"""8-bit integers for a model of OpenVINO: convolutions and products get inputs and weights of 256 steps.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018.
An input's steps cover the range of the calibration, one range for all its channels. Weights have 255 steps, symmetric,
with a range for each output channel. Sums are exact. Operations between two of them, such as the addition of a
shortcut, stay float32 unless the runtime fuses them.

An x86 processor without VNNI adds two products in a signed integer of 16 bits, which saturates. There weights have 127
steps: two products with the largest input, 2 × 255 × 63, stay below 32,768.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from processors.device.backends.contract import UnsupportedNetworkError
from processors.device.cpu_flags import cpu_flags

if TYPE_CHECKING:
    import openvino

Array = np.ndarray[Any, np.dtype[np.float32]]

_WEIGHTED: Final = {"Convolution": 1, "GroupConvolution": 2, "MatMul": 1}
"""Operations with weights, and the number of leading weight axes that are for output channels."""
_AT_ONCE: Final = 32
_EXACT: Final = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Instructions of x86 processors that add products in 32 bits."""


def quantised(
    core: openvino.Core, model: openvino.Model, calibration: Array, exact_first: bool = False
) -> openvino.Model:
    """Return a copy of `model` in 8-bit integers; `calibration` (N, C, H, W) are its inputs. Raises
    UnsupportedNetworkError.

    With `exact_first` its first layer stays float32, and its input is not rounded.
    """
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_moc_transformations

    model = model.clone()
    # Batch normalisation becomes part of the weights before it.
    apply_moc_transformations(model, cf=True)
    layers = [
        node for node in model.get_ordered_ops() if node.get_type_name() in _WEIGHTED and _weights(node) is not None
    ]
    layers = layers[exact_first:]
    if not layers:
        raise UnsupportedNetworkError("int8: expected convolutions or products with fixed weights, found none")
    ranges = _ranges(core, model, layers, calibration)
    inputs: dict[tuple[str, int], Any] = {}
    most = largest_weight()
    for node in layers:
        source, weights = node.input_value(0), _weights(node)
        assert weights is not None
        place = _place(source)
        if place not in inputs:
            low, high = ranges[place]
            inputs[place] = _steps(ops, source, np.float32(low), np.float32(high), 256)
        node.input(0).replace_source_output(inputs[place].output(0))
        largest = np.maximum(np.abs(weights).max(axis=_others(node, weights.ndim), keepdims=True), 1e-12)
        # The number of steps stays 255: a wider range leaves the outer ones unused.
        largest *= 127 / most
        node.input(1).replace_source_output(_steps(ops, node.input_value(1), -largest, largest, 255).output(0))
    model.validate_nodes_and_infer_types()
    return model


def largest_weight() -> int:
    """Return the largest integer weight with which sums are exact on this processor."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return 63 if x86 and not _EXACT & cpu_flags() else 127


def _steps(ops: Any, source: Any, low: Any, high: Any, levels: int) -> Any:
    low, high = (ops.constant(np.asarray(each, np.float32)) for each in (low, high))
    return ops.fake_quantize(source, low, high, low, high, levels)


def _weights(node: Any) -> Array | None:
    """Return the fixed weights of an operation; None if they are computed."""
    source = node.input_value(1).get_node()
    while source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        return None
    return np.asarray(source.data, np.float32)


def _others(node: Any, axes: int) -> tuple[int, ...]:
    """Return the axes of the weights that belong to one output channel."""
    if node.get_type_name() == "MatMul":
        return (axes - 1,) if node.get_attributes().get("transpose_b") else (axes - 2,)
    return tuple(range(_WEIGHTED[node.get_type_name()], axes))


def _place(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _ranges(
    core: openvino.Core, model: openvino.Model, layers: list[Any], calibration: Array
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the ranges of the inputs of `layers` on the calibration; zero is inside, because borders are padded with
    it.
    """
    watched = model.clone()
    nodes = {node.get_friendly_name(): node for node in watched.get_ordered_ops()}
    places = list(dict.fromkeys(_place(node.input_value(0)) for node in layers))
    own = len(watched.outputs)
    watched.add_outputs([nodes[name].output(index) for name, index in places])
    compiled = core.compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    low, high = np.zeros(len(places)), np.zeros(len(places))
    for start in range(0, len(calibration), _AT_ONCE):
        found = compiled([np.ascontiguousarray(calibration[start : start + _AT_ONCE])])
        for i in range(len(places)):
            values = found[compiled.outputs[own + i]]
            low[i], high[i] = min(low[i], values.min()), max(high[i], values.max())
    if not np.isfinite(low).all() or not np.isfinite(high).all():
        raise UnsupportedNetworkError("int8: expected finite activations on the calibration, got NaN or infinity")
    return {place: _range(low[i], high[i]) for i, place in enumerate(places)}


def _range(low: float, high: float) -> tuple[float, float]:
    """Return a range that begins at zero if it has no negative values; else one with zero as one of the 256 steps."""
    if low == high == 0:
        return 0.0, 1.0
    if low >= 0:
        return 0.0, high
    # 128 steps below zero and 127 above it.
    step = max(-low / 128, high / 127)
    return -128 * step, 127 * step
