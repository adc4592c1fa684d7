"""The file of cameras with byte rates of their own; it is read again when it changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import structlog

from schemas.identity import CameraId

log = structlog.get_logger()


class CameraRates:
    """The file of byte rates: a JSON object with MiB a second by camera. A missing file is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None

    def changed(self) -> Mapping[CameraId, float] | None:
        """Bytes a second by camera if the file has changed since the last call, else None.

        If the file cannot be read, the error is logged and the previous rates hold.
        """
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            version = (0, 0)
        if version == self._read:
            return None
        self._read = version
        if version == (0, 0):
            return {}
        try:
            found = {
                CameraId(str(name)): float(mib) * 2**20 for name, mib in json.loads(self._path.read_text()).items()
            }
            if not all(math.isfinite(rate) and rate >= 0 for rate in found.values()):
                raise ValueError("expected rates from 0")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("camera_rates_not_read", file=str(self._path), cause=repr(error)[:200])
            return None
        return found
