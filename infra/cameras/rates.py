"""The rate limits of cameras that may send more than those of the scenario that `up` runs."""

from __future__ import annotations

import os

from infra.state_folder import Layout
from producers.bridge import BridgeSettings
from schemas.identity import CameraId
from schemas.runtime.file_lock import lock_file
from schemas.runtime.json_files import read_object, write_json

USUAL_MIB = BridgeSettings.model_fields["camera_bytes_per_s"].default / 2**20
"""The default rate, in MiB a second, that a bridge accepts from a camera."""


def allow_rate(layout: Layout, camera_id: CameraId, mib_per_s: float = USUAL_MIB) -> None:
    """Give a camera a limit of its own at the bridges of a running `up`, unless it has one: a person may have set it.

    The user who attaches the camera owns the state folder. An empty file has no limits. Raises StateError if it is
    damaged.
    """
    file = layout.camera_rates
    lock = lock_file(file.with_suffix(".lock"), wait=True)
    try:
        is_empty = file.exists() and not file.stat().st_size
        known = {} if is_empty else read_object(file, "a JSON object with a rate for each camera", dict, "Correct it.")
        if camera_id not in known:
            write_json(file, known | {camera_id: mib_per_s}, durably=True)
    finally:
        os.close(lock)
