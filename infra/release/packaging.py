"""Release artefacts: built as users get them, and installed into an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_PATIENCE_S: Final = 900.0


def build(out: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist of this checkout in `out`; the wheel is built from the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Create a virtual environment with the locked requirements of `extra` and the wheel; return its `bin`."""
    python = folder / "bin" / "python"
    pip = [_uv(), "pip", "install", "-q", "--python", str(python)]
    for command in (
        [_uv(), "venv", "-q", "--python", sys.executable, str(folder)],
        [*pip, "--require-hashes", "-r", str(ROOT / "requirements" / f"{extra}.txt")],
        [*pip, "--no-deps", str(wheel)],
    ):
        subprocess.run(command, check=True, timeout=_PATIENCE_S)
    return python.parent


def _uv() -> str:
    """Return uv from the path, or from the place where the Makefile installs it."""
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / "build" / "uv" / "bin"))
    if found is None:
        raise SystemExit("expected uv on the path or in build/uv/bin: `make setup` installs it")
    return found
