"""oneDNN on x86: a check whether its convolutions pay, and convolutions fused with the next operation.

torch fuses a convolution with a ReLU or an addition only in compiled programs, but the same operators can be called
directly. The sums are equal to the last bit; each fusion saves one pass over memory.

It also holds the other calls of torch's private members: `forget_traces`.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def onednn_pays(x: Tensor) -> bool:
    """Return whether a convolution of `x` runs on oneDNN's own kernels: float32 on an x86 processor, outside a
    compiler.
    """
    exported = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return x.device.type == "cpu" and x.dtype == torch.float32 and not exported and _have_kernels()


@cache
def _have_kernels() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # type: ignore[no-untyped-call]  # no annotations


def convolve_relu(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Return max(0, convolution(x)), (B, C, H, W) to (B, D, H, W)."""
    if _fusible(convolution, x):
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *_settings(convolution), "relu", [], None)
        return fused
    return F.relu(convolution(x), inplace=True)


def convolve_add(convolution: nn.Conv2d, x: Tensor, shortcut: Tensor) -> Tensor:
    """Return shortcut + convolution(x), all (B, C, H, W)."""
    if _fusible(convolution, x):
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, shortcut, *_settings(convolution), "add", None, None, [], None
        )
        return fused
    added: Tensor = shortcut + convolution(x)
    return added


def _fusible(convolution: nn.Conv2d, x: Tensor) -> bool:
    # The fused operators have no derivative. They are not part of torch's public interface.
    return (
        not (torch.is_grad_enabled() and (x.requires_grad or convolution.weight.requires_grad))
        and onednn_pays(x)
        and not torch.is_autocast_enabled("cpu")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _settings(c: nn.Conv2d) -> tuple[Tensor, Tensor | None, list[int], list[int], list[int], int]:
    assert not isinstance(c.padding, str)
    return c.weight, c.bias, list(c.padding), list(c.stride), list(c.dilation), c.groups


def forget_traces() -> None:
    """Release what torch keeps of every trace: its types and weights, about a megabyte of a small network.

    torch has no public call for that. Modules that `torch.jit.load` has read are not affected.
    """
    torch._C._jit_clear_class_registry()
    torch.jit._state._clear_class_state()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
