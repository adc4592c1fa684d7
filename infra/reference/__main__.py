"""`python -m infra.reference` writes the pages; with `--check` it lists outdated pages, and ends with status 1."""

from __future__ import annotations

import argparse
import sys

from infra.reference.pages import out_of_date, write


def main() -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        write()
        return 0
    old = out_of_date()
    for name in old:
        print(f"docs/{name} differs from the code. Run `python -m infra.reference`.", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
