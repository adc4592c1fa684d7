"""The permission to run a bundle's own code: a factory in a file of the bundle, or TorchScript.

A shipped bundle is as trusted as the project. A published bundle is trusted if its signer is, and its loader passes
that on. Any other bundle runs code only if a person has allowed it.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from processors.bundle.model_toml import BundleSettings
from schemas.errors import BundleError

ALLOW_CODE: Final = "POINTILLIST_ALLOW_CODE"
"""Environment variable: 1 allows bundles on this machine to run their own code."""
_SHIP: Final = ("bundles", "lab")
"""Packages in whose folders bundles ship."""


def code_of(settings: BundleSettings) -> str | None:
    """Return a description of the bundle's own code; None if it has none."""
    if settings.format == "torchscript":
        return f"the TorchScript {settings.weights}"
    if settings.factory is not None and settings.factory.partition(":")[0].endswith(".py"):
        return f"the factory {settings.factory}"
    return None


def check_code(settings: BundleSettings, folder: Path, vouched: bool) -> None:
    """Raise BundleError, before any code runs, if a bundle has code that nobody has allowed.

    `vouched` is true if a trusted signer, or the author of the bundle in this process, answers for it.
    """
    code = code_of(settings)
    if code is None or vouched or os.environ.get(ALLOW_CODE) == "1" or _ships(folder):
        return
    raise BundleError(
        f"{code}: expected permission to run this code of the bundle with your rights, got none. If you "
        f"trust its author, give --allow-code or {ALLOW_CODE}=1, or publish it by a trusted signer."
    )


def _ships(folder: Path) -> bool:
    return any(folder.resolve().is_relative_to(Path(str(files(package))).resolve()) for package in _SHIP)
