"""The check of a bundle's folder before anything in it is read or run.

The commands and the processor call it, not `load_bundle`: the rows of the lab's results are bound to that code.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from processors.bundle.limits import MAX_SETTINGS_BYTES, check_size
from schemas.errors import BundleError, first_line
from schemas.toml import parse_toml


def check_folder(folder: Path) -> None:
    """Raise BundleError for a `model.toml` that is no TOML or too costly to parse. The loader reports a missing one.

    From then on, this process ignores compiled code in the folder: Python would run it in place of the source, and no
    digest or signature covers it.
    """
    # Both stay so after the load: two bundles may be loaded at once, and a network may import files later.
    sys.dont_write_bytecode = True
    if any(folder.rglob("__pycache__")):
        sys.pycache_prefix = os.devnull
    path = folder / "model.toml"
    try:
        with suppress(OSError):
            check_size(path, MAX_SETTINGS_BYTES)
            parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path}: expected TOML, got {first_line(error)}. Correct the file.") from error
