"""A count of a bundle's loads that ended the process, by which a processor gives up a bundle that kills it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from schemas.errors import BundleError
from schemas.pointillist_pb2 import Model
from schemas.runtime.atomic_file import write_text

MOST: Final = 3
"""Ended processes after which a published bundle is not loaded again."""

log = structlog.get_logger()


@contextmanager
def fatal_loads_counted(folder: Path, processor: str, model: Model) -> Iterator[None]:
    """Run the block, which loads `model`, and count it in `folder` if the process does not survive it.

    `processor` is a name that the processor keeps over restarts and shares with no other. A bundle that is published
    again has a new count. Raises BundleError, without running the block, if `MOST` processes have ended in it.
    """
    file = folder / f"{processor}-{model.digest}-{model.published_ms}.loads"
    ended = _read(file)
    if ended >= MOST:
        raise BundleError(
            f"{model.model_id}: expected a bundle that loads, but {ended} processes in succession ended while they "
            "loaded it. Give the processor more memory and publish it again, or publish another one."
        )
    try:
        write_text(file, str(ended + 1))
    except OSError as error:
        log.warning("load_not_counted", model=model.model_id, error=error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
