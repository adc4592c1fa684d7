"""Time from a fresh clone to the first recorded frame: `python -m benchmarks.reliability.fresh --json FILE [--test]`.

Clones the committed project into an empty folder with empty caches (uv's, Maven's, its own). Times `make up` until the
recorder has written a frame, then, with `--test`, `make test`. Installed Debian packages stay.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import report
from infra.state_folder import Layout

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 1800.0


def environment(caches: Path) -> dict[str, str]:
    """Return the environment with empty caches, and without variables that lead to another checkout's packages."""
    left_out = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    return inherited | {
        "UV_CACHE_DIR": str(caches / "uv"),
        "XDG_CACHE_HOME": str(caches / "xdg"),
        "PIP_NO_CACHE_DIR": "1",
        "MAVEN_OPTS": f"-Dmaven.repo.local={caches / 'maven'}",
    }


def first_record_ms(layout: Layout) -> int | None:
    """Return the recording time of the first frame, in Unix milliseconds."""
    try:
        with sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True) as connection:
            found = connection.execute("select min(recorded_ms) from frames").fetchone()[0]
    except sqlite3.Error:
        return None
    return int(found) if found is not None else None


def measure(folder: Path, with_tests: bool) -> dict[str, Any]:
    """Clone, run `make up`, and run `make test` if requested."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    surroundings = environment(folder / "caches")
    begun = time.time()
    options = f"--cameras 8 --fps 2 --seconds 20 --state {folder / 'state'} --report {folder / 'report.json'}"
    up = subprocess.run(["make", "up", f"ARGS={options}"], cwd=clone, env=surroundings, check=False, timeout=PATIENCE_S)
    up_s = time.time() - begun
    recorded_ms = first_record_ms(Layout(folder / "state"))
    result: dict[str, Any] = {
        "make_up_status": up.returncode,
        "first_record_s": recorded_ms / 1000 - begun if recorded_ms is not None else None,
        "make_up_of_20_s_took_s": up_s,
        "frames_lost": json.loads((folder / "report.json").read_text())["frames_lost"],
    }
    if with_tests:
        begun = time.time()
        tests = subprocess.run(
            ["make", "test"],
            cwd=clone,
            env=surroundings | {"COLUMNS": "400"},  # pytest cuts the reason of a failure at the width of a terminal
            check=False,
            timeout=PATIENCE_S,
            capture_output=True,
            text=True,
        )
        closing = [line for line in tests.stdout.splitlines() if re.search(r"\d+ (passed|failed)", line)]
        result |= {
            "make_test_status": tests.returncode,
            "make_test_s": time.time() - begun,
            "make_test_failed": re.findall(r"^(?:FAILED|ERROR) tests/.*$", tests.stdout, re.MULTILINE),
            "make_test_said": closing[-1].strip("= ") if closing else tests.stdout[-500:],
        }
    return result


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(__doc__, json=Path, test=False)
    with tempfile.TemporaryDirectory(prefix="pointillist-fresh-") as folder:
        result = measure(Path(folder), arguments.test)
    report({"result": result}, arguments.json)


if __name__ == "__main__":
    main()
