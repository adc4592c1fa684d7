"""Networks of libraries that users know, torchvision and timm: by name, without weights, and without a download.

A bundle names these factories as it does those of the project: no code of the bundle runs, and what takes weights from
elsewhere (`weights=`, `pretrained=`, `checkpoint_path=`) cannot be asked for. The library must be installed where the
bundle is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from schemas.errors import BundleError


def torchvision_network(name: str, classes: int) -> nn.Module:
    """A classifier of `torchvision.models` for so many classes, untrained. Raises BundleError."""
    models = library("torchvision").models
    _check_name("torchvision", name, models.list_models(module=models))
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def timm_network(name: str, classes: int, channels: int = 3) -> nn.Module:
    """A classifier of timm for so many classes and channels, untrained. Raises BundleError."""
    timm = library("timm")
    _check_name("timm", name, timm.list_models())
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    return network


def library(package: str) -> Any:
    """The imported package; raises BundleError with the line that installs it."""
    try:
        return import_module(package)
    except ImportError:
        raise BundleError(f"expected the package {package}, which is not installed: pip install {package}") from None


def _check_name(package: str, name: str, known: list[str]) -> None:
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=3) or known[:3]
        raise BundleError(f"expected a network of {package}, such as {', '.join(near)}; got {name!r}")
