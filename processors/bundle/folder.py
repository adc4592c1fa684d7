"""The check of a bundle's folder before anything in it is read or run.

The commands and the processor call it, not `load_bundle`: the rows of the lab's results are bound to that code.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from processors.bundle.external_tensors import external_tensors
from processors.bundle.limits import MAX_SETTINGS_BYTES, check_size
from schemas.errors import BundleError, first_line
from schemas.toml import parse_toml


def check_folder(folder: Path) -> None:
    """Raise BundleError for a `model.toml` that is no TOML or too costly to parse, and for an ONNX graph with weights
    in other files, which the model id would not cover. The loader reports missing or damaged files.

    From then on, this process ignores compiled code in the folder: Python would run it in place of the source, and no
    digest or signature covers it.
    """
    # Both stay so after the load: two bundles may be loaded at once, and a network may import files later.
    sys.dont_write_bytecode = True
    if any(folder.rglob("__pycache__")):
        sys.pycache_prefix = os.devnull
    path, table = folder / "model.toml", {}
    try:
        with suppress(OSError):
            check_size(path, MAX_SETTINGS_BYTES)
            table = parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path}: expected TOML, got {first_line(error)}. Correct the file.") from error
    if table.get("format") == "onnx":
        _check_graph(folder / str(table.get("weights")))


def _check_graph(file: Path) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    if not file.is_file():
        return
    check_size(file)
    with suppress(DecodeError, OSError):
        graph = onnx.load_model(file, format="protobuf", load_external_data=False)
        external = next(external_tensors(graph), None)
        if external is not None:
            raise BundleError(
                f"{file}: expected a graph with its weights, got {external.name[:80]!r} in another file. Load the "
                "graph with onnx.load and save it as one file with onnx.save."
            )
