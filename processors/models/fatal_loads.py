"""Counts of the processes that a bundle has ended, by which a processor gives up a bundle that kills it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from processors.device.lost_device import DeviceLostError, is_lost
from schemas.errors import BundleError
from schemas.pointillist_pb2 import Model
from schemas.runtime.atomic_file import write_text

MOST: Final = 3
"""Ended processes after which a published bundle is not loaded again."""

log = structlog.get_logger()


@contextmanager
def fatal_loads_counted(folder: Path, processor: str, model: Model) -> Iterator[None]:
    """Run the block, which loads `model`, and count it in `folder` if the process or its device does not survive it.

    `processor` is a name that the processor keeps over restarts and shares with no other. A bundle that is published
    again has a new count. Raises BundleError, without running the block, if `MOST` processes have ended in it, or have
    lost their device by the work of the model.
    """
    file = _file(folder, processor, model, "loads")
    ended, lost = _read(file), _read(_file(folder, processor, model, "losses"))
    if lost >= MOST:
        raise BundleError(
            f"{model.model_id}: expected a model that leaves its device intact, but {lost} processes lost theirs while "
            "it judged frames as a candidate. Publish another one."
        )
    if ended >= MOST:
        raise BundleError(
            f"{model.model_id}: expected a bundle that loads, but {ended} processes in succession ended while they "
            "loaded it. Give the processor more memory and publish it again, or publish another one."
        )
    _write(file, ended + 1, model)
    try:
        yield
    except DeviceLostError:  # the process ends with it
        raise
    except BaseException:
        if not is_lost():  # another model's work may have met the end of the device first
            _remove(file)
        raise
    _remove(file)


def count_loss(folder: Path, processor: str, model: Model) -> None:
    """Count a process that lost its device while `model`, a candidate, judged frames."""
    file = _file(folder, processor, model, "losses")
    _write(file, _read(file) + 1, model)


def _file(folder: Path, processor: str, model: Model, kind: str) -> Path:
    return folder / f"{processor}-{model.digest}-{model.published_ms}.{kind}"


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _write(file: Path, count: int, model: Model) -> None:
    try:
        write_text(file, str(count))
    except OSError as error:
        log.warning("ended_process_not_counted", model=model.model_id, error=error.strerror)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)
