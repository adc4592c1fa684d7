"""The file of cameras with byte rates of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import structlog

from schemas.errors import ConfigError
from schemas.identity import CameraId, camera_id

log = structlog.get_logger()


def read_rates(file: Path) -> dict[CameraId, float]:
    """Return bytes a second by camera from a JSON object of MiB a second by camera. A missing file is an empty one.

    A name that no camera can have is logged and ignored. Raises the errors of a file that holds anything else.
    """
    try:
        listed = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(listed, dict):
        raise ConfigError("expected a JSON object of MiB a second by camera, got another form")
    rates: dict[CameraId, float] = {}
    ignored: list[str] = []
    for name, mib in listed.items():
        try:
            rates[camera_id(name)] = float(mib) * 2**20
        except ConfigError as error:
            ignored.append(str(error))
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates.values()):
        raise ConfigError("expected finite rates from 0, got another one")
    for why in ignored:
        log.warning("camera_rate_ignored", file=str(file), error=why)
    return rates
