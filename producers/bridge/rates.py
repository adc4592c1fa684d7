"""The file of cameras with byte rates of their own; it is read again when it changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import structlog

from schemas.errors import ConfigError
from schemas.identity import CameraId, camera_id
from schemas.runtime.file_version import FileVersion, file_version

log = structlog.get_logger()


class CameraRates:
    """The file of byte rates: a JSON object with MiB a second by camera. A missing file is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: FileVersion = (0, 0, 0)  # no file has this version
        self._failure = ""

    def changed(self) -> Mapping[CameraId, float] | None:
        """Return bytes a second by camera if the file has changed since the last call, else None.

        If the file cannot be read, the error is logged, the previous rates hold, and the next call reads it again. A
        name that no camera can have is logged and ignored.
        """
        version = file_version(self._path)
        if version == self._read:
            return None
        found: dict[CameraId, float] = {}
        ignored: list[str] = []
        try:
            for name, mib in json.loads(self._path.read_text()).items():
                try:
                    found[camera_id(name)] = float(mib) * 2**20
                except ConfigError as error:
                    ignored.append(str(error))
            if not all(math.isfinite(rate) and rate >= 0 for rate in found.values()):
                raise ValueError("expected rates from 0")
        except FileNotFoundError:
            found = {}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if self._failure != (failure := repr(error)[:200]):
                self._failure = failure
                log.warning("camera_rates_not_read", file=str(self._path), error=failure)
            return None
        for why in ignored:
            log.warning("camera_rate_ignored", file=str(self._path), error=why)
        self._read, self._failure = version, ""
        return found
