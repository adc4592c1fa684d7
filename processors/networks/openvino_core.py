"""The one OpenVINO of a process."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

# OpenVINO sends telemetry to its makers on import, unless the telemetry package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "missing", for the import system


@cache
def openvino_core() -> openvino.Core:
    """Return OpenVINO's core. Raises ImportError without the package, and whatever its libraries raise."""
    import openvino

    return openvino.Core()
