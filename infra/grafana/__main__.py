"""`python -m infra.grafana` writes the dashboards' JSON; with `--console`, the shipped ones with links to a console."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.grafana.shipped import FOLDER, linked


def main() -> None:
    """Write the dashboards, and print their files."""
    parser = argparse.ArgumentParser(prog="python -m infra.grafana", description=__doc__)
    parser.add_argument(
        "--console", metavar="URL", help="the console's address in the browsers of the dashboards' readers"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=FOLDER, help="default: infra/grafana/dashboards")
    options = parser.parse_args()
    if options.console is None:
        from infra.grafana.build import rendered  # its packages are for development

        boards = rendered()
    else:
        boards = linked(options.console.rstrip("/"))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in boards.items():
        (options.out / name).write_text(text)
        sys.stdout.write(f"{options.out / name}\n")


if __name__ == "__main__":
    main()
