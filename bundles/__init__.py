"""Model bundles that ship with the project, and those that were made on this machine.

`MADE` lies in the Python environment: an update of the project leaves it alone, and a new environment begins without.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

MADE: Final = Path(sys.prefix) / "share" / "pointillist" / "bundles"
"""The folder of bundles made on this machine, such as `imagenet`."""
GENERAL: Final = "imagenet"
"""Name of the bundle for real cameras; see `infra.bundling.imagenet`."""


def named_bundles() -> dict[str, Path]:
    """Return the folder of each shipped or made bundle by its name. Shipped ones come first."""
    found = {file.parent.name: file.parent for file in sorted(MADE.glob("*/model.toml"))}
    found |= {file.parent.name: file.parent for file in sorted(Path(str(files("bundles"))).glob("*/model.toml"))}
    return dict(sorted(found.items()))
