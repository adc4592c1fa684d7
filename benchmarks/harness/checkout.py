"""Benchmarks of another checkout of the project, with the Python of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def packages_of(checkout: Path) -> dict[str, str]:
    """Return the environment in which this Python, and what it starts, takes the packages of another checkout."""
    return {**os.environ, "PYTHONPATH": str(checkout.resolve())}


def run_in_checkout(checkout: Path, script: str, *options: object) -> Any:
    """Run the benchmark in the file `script`, such as `pipeline.py`, of any folder there. Return its `--json`."""
    found = next((checkout / "benchmarks").rglob(script), None)
    if found is None:
        raise FileNotFoundError(f"{checkout}/benchmarks: expected {script}, found none")
    module = ".".join(found.relative_to(checkout).with_suffix("").parts)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "found.json"
        subprocess.run(
            [sys.executable, "-m", module, *map(str, options), "--json", str(written)],
            cwd=checkout,
            env=packages_of(checkout),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return json.loads(written.read_text())
