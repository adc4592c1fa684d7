"""The result of a benchmark, printed and saved, and the machine that it ran on."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from schemas.runtime.atomic_file import write_text


def report(document: object, file: Path | None, shown: bool = True) -> None:
    """Write `document` as JSON to `file`, if there is one, and print it unless it is not to be shown."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if shown:
        print(text)
    if file is not None:
        write_text(file, text + "\n")


def machine(*packages: str, cores: int | None = None) -> dict[str, object]:
    """Return processor, usable cores (default: all) and versions of Python and of packages."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": cores or os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
