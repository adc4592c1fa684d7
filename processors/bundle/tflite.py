"""A TensorFlow Lite classifier, which OpenVINO reads and runs on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from processors.networks.openvino_core import openvino_core
from schemas.errors import BundleError, first_line

if TYPE_CHECKING:
    import openvino

_CHANNELS: Final = (1, 3)
_KINDS: Final = ("f32", "u8")


class TfliteNetwork:
    """A graph for one kind of picture; see `load_tflite`."""

    def __init__(self, model: openvino.Model, batch: int | None) -> None:
        """`model` maps (B, C, H, W) float32 to (B, classes)."""
        self.model = model
        """The graph, for another use of OpenVINO."""
        self.batch = batch
        """Fixed number of pictures of the graph, 1; None accepts any number."""
        self._request = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its pictures."""
        _, *sides = (each.get_length() if each.is_static else 0 for each in self.model.input().partial_shape)
        return sides[0], sides[1], sides[2]

    def __call__(self, frames: Tensor) -> Tensor:
        """Return its output, float32, on the device of `frames`."""
        pictures = frames.detach().cpu().float().contiguous()
        parts = pictures.split(self.batch or max(1, len(pictures)))  # type: ignore[no-untyped-call]  # no annotations
        found = [torch.from_numpy(self._request([each.numpy()])[0].copy()) for each in parts]
        return torch.cat(found).float().to(frames.device)


def load_tflite(weights: Path) -> TfliteNetwork:
    """Load a TensorFlow Lite classifier (1, H, W, C) float32 or uint8 to (1, classes).

    The network takes pictures (B, C, H, W) as float32, on the file's own scale. If the graph allows no other number of
    pictures than one, they run one by one. Raises BundleError.
    """
    try:
        model = openvino_core().read_model(weights)
    except ImportError:
        raise BundleError("openvino is missing: the format tflite needs this package. Install it.") from None
    except Exception as error:  # a frontend may raise anything
        raise BundleError(
            f"{weights.name}: expected a TensorFlow Lite file, got {first_line(error)}. Export the network again."
        ) from error
    taken = [f"{each.element_type.get_type_name()} {each.partial_shape}" for each in model.inputs]
    shape = model.inputs[0].partial_shape if len(taken) == 1 else None
    fits = shape is not None and shape.is_static and len(shape) == 4 and shape[3].get_length() in _CHANNELS
    if not fits or model.inputs[0].element_type.get_type_name() not in _KINDS:
        raise BundleError(
            f"{weights.name}: expected one input (1, H, W, 1 or 3) of float32 or uint8, got {', '.join(taken)}. "
            "Export the network again."
        )
    try:
        return _with_channels_first(model)
    except Exception as error:  # a frontend may raise anything
        raise BundleError(
            f"{weights.name}: expected operators that OpenVINO runs, got {first_line(error)}. Export the network again."
        ) from error


def _with_channels_first(model: openvino.Model) -> TfliteNetwork:
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    processing = PrePostProcessor(model)
    processing.input().tensor().set_element_type(Type.f32).set_layout(Layout("NCHW"))
    processing.input().model().set_layout(Layout("NHWC"))
    processing.output(0).tensor().set_element_type(Type.f32)
    first = processing.build()
    one = TfliteNetwork(first, 1)
    try:
        free = first.clone()
        free.reshape([-1, *one.shape])
        many = TfliteNetwork(free, None)
        example = torch.rand(3, *one.shape, generator=torch.Generator().manual_seed(0))
        if torch.allclose(many(example), one(example), rtol=1e-3, atol=1e-4):
            return many
    except Exception:  # a graph with a fixed number of pictures
        return one
    return one
