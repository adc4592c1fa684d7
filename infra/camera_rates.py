"""The file of cameras that may send more than those of the scenario that `up` runs."""

from __future__ import annotations

import fcntl

from infra.layout import Layout
from infra.local.files import read_json, write_json
from producers.bridge import BridgeSettings
from schemas.identity import CameraId

USUAL_MIB = BridgeSettings.model_fields["camera_bytes_per_s"].default / 2**20
"""MiB a second that a bridge accepts from a camera by default."""


def allow_rate(layout: Layout, camera_id: CameraId, mib_per_s: float = USUAL_MIB) -> None:
    """Let the bridges of a running `up` take this much of a camera; the person who attaches it has the state folder."""
    file = layout.camera_rates
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(file, read_json(file) | {camera_id: mib_per_s})
