"""What a backend is: it takes a network as its bundle's format holds it and runs it in some precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from torch import Tensor

from processors.bundle.formats import Network, OnnxNetwork
from schemas.errors import BundleError

BackendName = Literal["auto", "torch", "openvino"]
"""What may be asked for: the fastest, as the bundle's format is read (torch, or onnxruntime for ONNX), or OpenVINO."""

CpuPrecision = Literal["float32", "bf16", "int8"]
"""The arithmetic of a CPU: `bf16` rounds factors to 8 bits, `int8` to 256 steps of a range seen in calibration."""

COARSER: Final[tuple[CpuPrecision, ...]] = ("bf16", "int8")


class Unsuited(BundleError):  # noqa: N818  # a fact about a network, not a failure
    """A backend cannot run this network; its own runtime can."""


class Taken(Protocol):
    """A network in a backend's own form."""

    def at(self, precision: CpuPrecision, calibration: Tensor | None = None, exact_first: bool = False) -> Network:
        """What maps inputs (B, C, H, W) float32 to outputs, from any number of threads, for any B.

        `calibration` (N, C, H, W) are inputs as they will come, for `int8`; `exact_first` leaves the first layer in
        float32 even then. It computes with as many threads as torch
        does where it is made. Raises Unsuited.
        """


class Backend(Protocol):
    """One runtime."""

    name: str

    def lacks(self) -> str:
        """What this machine lacks for it, in words; empty where it is there."""

    def precisions(self) -> Sequence[CpuPrecision]:
        """What it can compute in on this processor."""

    def take(self, network: Network, example: Tensor, free_sides: bool) -> Taken:
        """`network` in this backend's form; `free_sides` where pictures of any size are to come. Raises Unsuited.

        `example` (B, C, H, W) is what it takes.
        """


def runtime_of(network: Network) -> str:
    """What runs a network as its bundle's format is read."""
    return "onnxruntime" if isinstance(network, OnnxNetwork) else "torch"
