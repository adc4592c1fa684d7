"""Networks of torchvision and timm: by name, without weights, and without a download.

A bundle names these factories like those of the project: no code of the bundle runs. Arguments that load other weights
(`weights=`, `pretrained=`, `checkpoint_path=`) are not available. The library must be installed where the bundle is
loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from torch import nn

from schemas.errors import BundleError

LIBRARIES: Final = ("torchvision", "timm")
"""The packages that networks come from."""


def torchvision_network(
    name: str, classes: int, aux_logits: bool | None = None, image_size: int | None = None
) -> nn.Module:
    """Return an untrained classifier of `torchvision.models` for this many classes. Raises BundleError.

    `aux_logits` states whether GoogLeNet or Inception v3 has its auxiliary heads, and `image_size` the side of a vision
    transformer's pictures; None is torchvision's default.
    """
    models = library("torchvision").models
    _check_name("torchvision", name, models.list_models(module=models))
    options: dict[str, Any] = {}
    if aux_logits is not None:
        options |= {"aux_logits": aux_logits, "init_weights": False}  # the initialisation takes seconds
    if image_size is not None:
        options["image_size"] = image_size
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    return network


def timm_network(name: str, classes: int, channels: int = 3) -> nn.Module:
    """Return an untrained classifier of timm for this many classes and channels. Raises BundleError."""
    timm = library("timm")
    _check_name("timm", name, timm.list_models())
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    return network


def library(package: str) -> Any:
    """Return the imported package, one of `LIBRARIES`; BundleError with the command that installs it.

    A bundle may name this function as its factory: another package would run code without permission.
    """
    if package not in LIBRARIES:
        raise BundleError(f"library: expected {' or '.join(LIBRARIES)}, got {package!r}. Correct the bundle's factory.")
    try:
        return import_module(package)
    except ImportError:
        raise BundleError(
            f"{package} is missing: the network needs this package. Run `pip install {package}`; in a checkout, "
            f"`uv pip install --python .venv/bin/python {package}`."
        ) from None


def _check_name(package: str, name: str, known: list[str]) -> None:
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=3) or known[:3]
        raise BundleError(
            f"network: expected one of {package}, such as {', '.join(near)}, got {name!r}. Correct the name."
        )
