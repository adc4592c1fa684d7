"""Run all or the named attacks on real brokers, and write the outcomes."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import report
from benchmarks.security.attacks.costly import COSTLY
from benchmarks.security.attacks.pixel_bombs import BOMBS_BY_NAME
from schemas.runtime.json_files import read_json

ATTACKS: Final = {**BOMBS_BY_NAME, **COSTLY}


def main() -> None:
    """Run the attacks one after the other. The file keeps earlier outcomes of the attacks that were not named."""
    arguments = command_line(__doc__, *ATTACKS, json=Path)
    results = read_json(arguments.json).get("result", {}) if arguments.json else {}
    for name in arguments.names or ATTACKS:
        with tempfile.TemporaryDirectory(prefix="pointillist-attack-") as folder:
            results[name] = asdict(ATTACKS[name](Path(folder) / name))
        report({name: results[name]}, None)
        report({"drill": "attacks", "result": results}, arguments.json, shown=False)


if __name__ == "__main__":
    main()
