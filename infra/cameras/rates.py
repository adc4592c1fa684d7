"""The rate limits of cameras that may send more than those of the scenario that `up` runs."""

from __future__ import annotations

import fcntl

from infra.local.files import read_json, write_json
from infra.state_folder import Layout
from producers.bridge import BridgeSettings
from schemas.identity import CameraId

USUAL_MIB = BridgeSettings.model_fields["camera_bytes_per_s"].default / 2**20
"""The default rate, in MiB a second, that a bridge accepts from a camera."""


def allow_rate(layout: Layout, camera_id: CameraId, mib_per_s: float = USUAL_MIB) -> None:
    """Raise the limit of a camera at the bridges of a running `up`; the user who attaches it owns the state folder."""
    file = layout.camera_rates
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(file, read_json(file) | {camera_id: mib_per_s})
