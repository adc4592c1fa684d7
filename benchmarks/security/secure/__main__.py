"""The cost of TLS, certificates and access rights: `python -m benchmarks.security.secure [--out docs/results/secure]`.

`secure N` and `plain N` are `pointillist up` at full speed, by default and with `--plain`, in turn: frames per second,
and CPU time per frame of each process. `revocation` revokes a camera of a running system. `race` revokes a thousand
cameras with eight processes at once. Each cell is written when it is measured, and not measured again without
`--again`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.security.secure.page import markdown
from benchmarks.security.secure.revocation import revocation
from benchmarks.security.secure.revocation_race import race
from benchmarks.speed.pipeline import whole_pipeline
from infra.up.settings import UpSettings, bundle_folder
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json


def cells(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the cells by name, in the order of their measurement."""
    cameras, seconds, rounds = options.cameras, options.seconds, options.rounds

    bundle = bundle_folder(UpSettings())
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for number in range(1, rounds + 1):
        found[f"secure {number}"] = lambda: whole_pipeline(bundle, cameras, seconds)
        found[f"plain {number}"] = lambda: whole_pipeline(bundle, cameras, seconds, "--plain")
    return found | {"revocation": revocation, "race": race}


def main() -> None:
    """Measure the missing cells."""
    options = command_line(
        __doc__,
        cells=Option(str, "cells such as `race` (default: all)", several="*", positional=True),
        out=Path("docs/results/secure"),
        rounds=3,
        cameras=8,
        seconds=20.0,
        again=Option(False, "also measure again what was measured before"),
    )
    known = cells(options)
    if unknown := [name for name in options.cells if name not in known]:
        raise SystemExit(f"CELLS: expected names among {', '.join(known)}, got {', '.join(unknown)}")
    keep = options.out / "secure.json"
    done = read_json(keep)
    for name in options.cells or known:
        if name in done and not options.again:
            continue
        machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "load": os.getloadavg()[0]}
        done[name] = known[name]() | {"machine": machine}
        print(json.dumps({name: done[name]}, indent=2), flush=True)
        report(done, keep, shown=False)
        write_text(options.out / "README.md", markdown(done))


if __name__ == "__main__":
    main()
