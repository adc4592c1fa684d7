"""The request for a bundle and the summary of one that was made: plain values, which need no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from infra.bundling.presets import Normalisation
from lab.statistics import Interval

if TYPE_CHECKING:
    from processors.bundle import Policy

MOST_SIDE: Final = 4096
"""Pixels of the longest side of a network's input, as in `processors.bundle.InputSettings`."""
Origin = Literal["onnx", "tflite", "torchscript", "torchvision", "timm", "imagenet"]
PrintLine = Callable[[str], object]
"""Prints a line about the progress."""
Skipped = Callable[[str, str], object]
"""Names a picture that was skipped, and the reason."""


@dataclass(frozen=True)
class BundleRequest:
    """The options of `bundle create`."""

    origin: Origin
    network: str
    """A file, or the name of a library's network."""
    classes: Path | None = None
    calibrate: Path | None = None
    normalisation: Callable[[Normalisation | None], Normalisation] = lambda known: (
        known or Normalisation((0.0,), (1.0,))
    )
    """Maps the known normalisation of the weights to the one that `model.toml` states."""
    weights: str = "default"
    size: tuple[int, int] | None = None
    channels: int = 3
    policy: Policy | None = None
    """None is the network's own: `resize` unless it states another."""
    name: str | None = None
    version: str = "1"
    strip_s: float = 6.0
    unsure: bool | None = None
    """Whether the pictures calibrate temperature and limit of `unsure`; None does for a network that has a limit."""


@dataclass(frozen=True)
class Summary:
    """The summary of a new bundle, which the command prints."""

    model_id: str
    origin: str
    format: str
    channels: int
    height: int
    width: int
    classes: int
    accuracy: Interval | None
    """Accuracy on the pictures with classes, if there were any."""
    strip: str | None
    """The calibration of STRIP in words; None without one."""
    unsure: str | None
    """The calibration of `unsure` in words; None without one."""
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
