"""OpenVINO on a CPU, by its own frontends: a model is traced, or read, from the one definition of each network."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from processors.bundle.formats import Network, OnnxNetwork
from processors.bundle.tflite import TfliteNetwork
from processors.device.backends.contract import CpuPrecision, UnsupportedNetworkError
from processors.networks.onednn import forget_traces
from processors.networks.openvino_core import openvino_core
from schemas.errors import typed_text

if TYPE_CHECKING:
    import openvino

_HINTS: Final = {"float32": "f32", "bf16": "bf16", "int8": "f32"}
_CACHED: Final = 1024
"""Kernels that a network caches, each for one size of one layer: a bound, because cameras choose the sizes of frames.
"""
_MOST: Final = 64
"""Pictures in one inference."""
_TRACING: Final = threading.Lock()
"""Held while a network is traced: two models may load at the same time, and the clean-up concerns all traces."""


class OpenVino:
    """The backend; see `processors.device.backends.contract.Backend`."""

    name = "openvino"

    def lacks(self) -> str:
        """Return the name of the package if it is missing or does not start."""
        if find_spec("openvino") is None:
            return "the package openvino"
        try:
            openvino_core()
        except Exception as error:  # its libraries may raise anything
            return f"an openvino that starts ({typed_text(error)})"
        return ""

    def precisions(self) -> Sequence[CpuPrecision]:
        """Return `bf16` if the processor multiplies such numbers; 8-bit integers work nearly everywhere, but are seldom
        faster.
        """
        able = set(openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        found: list[CpuPrecision] = ["float32"]
        if "BF16" in able:
            found.append("bf16")
        if "INT8" in able:
            found.append("int8")
        return found

    def convert(self, network: Network, example: Tensor, free_sides: bool) -> ConvertedModel:
        """Return the model of a module, of a TorchScript module, or of an ONNX or TensorFlow Lite graph."""
        if isinstance(network, OnnxNetwork | TfliteNetwork) and network.batch is not None:
            raise UnsupportedNetworkError(f"expected a graph for any number of pictures, got one for {network.batch}")
        if isinstance(network, OnnxNetwork):
            model = openvino_core().read_model(network.path)
        elif isinstance(network, TfliteNetwork):
            model = network.model.clone()
        else:
            model = _converted(network, example)
        sides = [-1, -1] if free_sides else list(example.shape[2:])
        model.reshape([-1, example.shape[1], *sides])
        return ConvertedModel(_with_float32(model))

    def restore(self, file: Path, precision: CpuPrecision) -> CompiledNetwork:
        """Return the function of a model that `ConvertedModel.save` has written."""
        return _compiled(openvino_core().read_model(file), precision)


class ConvertedModel:
    """A model that is not yet compiled."""

    def __init__(self, model: openvino.Model) -> None:
        self._model = model
        self._made: dict[CpuPrecision, openvino.Model] = {}

    def at(
        self, precision: CpuPrecision, calibration: Tensor | None = None, exact_first: bool = False
    ) -> CompiledNetwork:
        """See `processors.device.backends.contract.BackendNetwork`."""
        model = self._model
        if precision == "int8":
            from processors.device.backends.int8 import quantised

            if calibration is None:
                raise UnsupportedNetworkError("int8: expected a calibration, found none")
            model = quantised(openvino_core(), model, calibration.numpy(), exact_first)
        self._made[precision] = model
        return _compiled(model, precision)

    def save(self, precision: CpuPrecision, file: Path) -> None:
        """See `processors.device.backends.contract.BackendNetwork`."""
        import openvino

        openvino.save_model(self._made[precision], file, compress_to_fp16=False)


def _with_float32(model: openvino.Model) -> openvino.Model:
    """Return a model whose pictures and first output are float32, whatever numbers its file has."""
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    processing = PrePostProcessor(model)
    processing.input().tensor().set_element_type(Type.f32)
    processing.output(0).tensor().set_element_type(Type.f32)
    return processing.build()


def _compiled(model: openvino.Model, precision: CpuPrecision) -> CompiledNetwork:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Several processors on one machine would all be pinned to its first cores.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED,
    }
    return CompiledNetwork(openvino_core().compile_model(model, "CPU", settings))


class CompiledNetwork:
    """A compiled network for any number of pictures.

    Batches are split into powers of two, 37 into 32 + 4 + 1: no picture is computed in vain, and few sizes need
    kernels.
    """

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self._own = threading.local()

    def __call__(self, pictures: Tensor) -> Tensor:
        """Map inputs (B, C, H, W), as float32, to outputs (B, ...)."""
        pictures = pictures.detach().float().contiguous()
        parts = [self._some(some) for some in pictures.split(_powers(len(pictures)))]  # type: ignore[no-untyped-call]  # no annotations
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _some(self, pictures: Tensor) -> Tensor:
        import openvino

        request = self._request()
        request.set_input_tensor(openvino.Tensor(pictures.numpy(), shared_memory=True))
        request.infer(share_outputs=True)
        # The next run overwrites the request's memory.
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    def _request(self) -> openvino.InferRequest:
        """Return the thread's own request: a request holds the pictures of its current run."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request: openvino.InferRequest = self._own.request
        return request


def _powers(count: int) -> list[int]:
    """Return powers of two up to `_MOST`, largest first, that sum to `count`; [0] for none."""
    parts = [_MOST] * (count // _MOST)
    rest = count % _MOST
    parts += [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    return parts or [0]


def _converted(network: Network, example: Tensor) -> openvino.Model:
    if not isinstance(network, nn.Module):
        raise UnsupportedNetworkError(f"expected a torch.nn.Module or a graph, got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        return _converted_script(network)
    with _TRACING:
        try:
            return _converted_script(_traced(network, example))
        finally:
            forget_traces()


def _traced(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced: torch.jit.ScriptModule = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]  # no annotations
    # A result that depends on values, not on shapes, would stay the example's.
    doubts = [each.message for each in caught if issubclass(each.category, torch.jit.TracerWarning)]  # type: ignore[attr-defined]  # not listed there
    if doubts:
        raise UnsupportedNetworkError(f"its way depends on values: {str(doubts[0]).splitlines()[0]}")
    return traced


def _converted_script(script: torch.jit.ScriptModule) -> openvino.Model:
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frontend = _frontends().load_by_framework("pytorch")
        # Named, because the frontend does not keep the name; with its own weights, because the model would not keep
        # torch's.
        decoder = TorchScriptPythonDecoder(script, shared_memory=False)
        model: openvino.Model = frontend.convert(frontend.load(decoder))
    return model


@cache
def _frontends() -> Any:
    """Cached: the loaded frontends live as long as this object."""
    from openvino.frontend import FrontEndManager

    return FrontEndManager()
