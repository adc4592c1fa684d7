"""Run all or the named attacks on real brokers, and write the outcomes."""

from __future__ import annotations

import importlib
import json
import pkgutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import benchmarks.security.attacks
from benchmarks.harness.command_line import command_line
from benchmarks.security.attacks.outcome import Outcome


def attacks() -> dict[str, Callable[[Path], Outcome]]:
    """Return every module of this package that has a function `attack`, by its name with dashes."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.security.attacks.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"benchmarks.security.attacks.{module.name}")
            if hasattr(loaded, "attack"):
                found[module.name.replace("_", "-")] = loaded.attack
    return found


def main() -> None:
    """Run the attacks one after the other. The file keeps earlier outcomes of the attacks that were not named."""
    known = attacks()
    arguments = command_line(__doc__, *known, json=Path)
    results = {}
    if arguments.json and arguments.json.is_file():
        results = json.loads(arguments.json.read_text())["result"]
    for name in arguments.names or known:
        with tempfile.TemporaryDirectory(prefix="pointillist-attack-") as folder:
            results[name] = asdict(known[name](Path(folder)))
        print(json.dumps({name: results[name]}, indent=2))
        if arguments.json:
            arguments.json.write_text(json.dumps({"drill": "attacks", "result": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
