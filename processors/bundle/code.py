"""Whose code runs: a bundle may bring some, a factory in a file of its own or TorchScript.

What ships with the project is as trusted as the project. What was published is trusted when its signer is, and whoever
loads it says so. Any other bundle runs code only when a person has said that it may.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from processors.bundle.model_toml import BundleSettings
from schemas.errors import BundleError

ALLOW_CODE: Final = "POINTILLIST_ALLOW_CODE"
"""The variable that says, as 1, that bundles of this machine may run code that they bring."""
_SHIP: Final = ("bundles", "lab")
"""Packages in whose folders bundles ship."""


def code_of(settings: BundleSettings) -> str | None:
    """What of a bundle is code; None when nothing is."""
    if settings.format == "torchscript":
        return f"the TorchScript {settings.weights}"
    if settings.factory is not None and settings.factory.partition(":")[0].endswith(".py"):
        return f"the factory {settings.factory}"
    return None


def check_code(settings: BundleSettings, folder: Path, vouched: bool) -> None:
    """Raise BundleError, before any of it runs, when a bundle brings code that nobody has allowed.

    `vouched` says that a trusted signer, or who has just written it, answers for this bundle.
    """
    code = code_of(settings)
    if code is None or vouched or os.environ.get(ALLOW_CODE) == "1" or _ships(folder):
        return
    raise BundleError(
        f"{code} is code of the bundle, which would run with your rights: expected --allow-code or {ALLOW_CODE}=1, if "
        "you trust who made it, or a bundle that a trusted signer has published"
    )


def _ships(folder: Path) -> bool:
    return any(folder.resolve().is_relative_to(Path(str(files(package))).resolve()) for package in _SHIP)
