"""The contract of a backend: it takes a network in its bundle's format and runs it in some precision.

Its runtime may raise any error, for a network that it cannot run or for a lack of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from torch import Tensor

from processors.bundle.formats import Network, OnnxNetwork
from processors.bundle.tflite import TfliteNetwork
from schemas.errors import BundleError

BackendName = Literal["auto", "torch", "openvino"]
"""Requestable backends: the fastest, the bundle format's own runtime (torch, or onnxruntime for ONNX), or OpenVINO."""

CpuPrecision = Literal["float32", "bf16", "int8"]
"""The arithmetic of a CPU: `bf16` rounds factors to 8 bits, `int8` to 256 steps of a range seen in calibration."""

COARSER: Final[tuple[CpuPrecision, ...]] = ("bf16", "int8")


class UnsupportedNetworkError(BundleError):
    """A backend cannot run this network; its own runtime can."""


class BackendNetwork(Protocol):
    """A network in a backend's own form."""

    def at(self, precision: CpuPrecision, calibration: Tensor | None = None, exact_first: bool = False) -> Network:
        """Return a function from inputs (B, C, H, W) float32 to outputs, for any B, callable from any thread.

        `calibration` (N, C, H, W) are typical inputs, for `int8`; with `exact_first` the first layer stays in float32
        even then. The function computes with as many threads as torch has where it is made.
        """

    def save(self, precision: CpuPrecision, file: Path) -> None:
        """Write the model that `at` has compiled for this precision, in the form that `Backend.restore` reads."""


class Backend(Protocol):
    """A runtime for networks on this CPU."""

    name: str

    def lacks(self) -> str:
        """Return the missing requirement of this machine in words; empty if the backend is available."""

    def precisions(self) -> Sequence[CpuPrecision]:
        """Return the precisions in which the backend can compute on this CPU."""

    def convert(self, network: Network, example: Tensor, free_sides: bool) -> BackendNetwork:
        """Return `network` in this backend's form; `free_sides` allows pictures of any size.

        `example` (B, C, H, W) is a typical input.
        """

    def restore(self, file: Path, precision: CpuPrecision) -> Network:
        """Return the function that `BackendNetwork.at` made of the model in `file`."""


def runtime_of(network: Network) -> str:
    """Return the name of the runtime of a network's bundle format."""
    if isinstance(network, TfliteNetwork):
        return "openvino"
    return "onnxruntime" if isinstance(network, OnnxNetwork) else "torch"
