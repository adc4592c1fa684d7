"""Admission of a camera to a fleet: its key, certificate and rights, and the enrolment file for its device."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infra.admission.camera_revocation import reload_broker, revoke
from infra.pki.authority import Authority
from infra.pki.enrolment import enroll
from infra.pki.refusals import readmit
from infra.pki.roles import Roles
from infra.state_folder import Layout, regular_file, writing
from infra.state_folder.identity_lock import changing_identities
from infra.up.listener import listener_for_devices
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.runtime.atomic_file import try_replacing

_ENROLMENT_BYTES: Final = 8192
"""More than an enrolment has."""


def admit(layout: Layout, camera: CameraId, out: Path, mqtt: str | None, days: float) -> None:
    """Write the enrolment of `camera` to `out`, and restore the rights of a revoked camera.

    If the camera has a key of a refused generation on this machine, the key is issued again.

    `mqtt` is the broker's address for the device, `host:port`; None stands for the listener of the running or last
    `up`. Raises StateError without a fleet secret. Raises ConfigError for a broker that this `up` cannot be, or when
    `out` cannot be written.
    """
    with changing_identities(layout.folder):
        authority = Authority(layout.pki)
        if not layout.secret_file.is_file():
            raise StateError(
                f"{layout.secret_file} is missing: expected the fleet secret of a running system. Give its folder "
                "as --state."
            )
        mqtt = listener_for_devices(layout, mqtt)
        generation = layout.accepted_generations().get(camera, 0)
        key = derive_camera_key(layout.fleet_secret(), camera, generation)
        with writing("--out", out):
            enroll(authority, key, out, mqtt, days)
        if layout.key_file(camera).is_file():
            layout.issue_key(camera, generation)
        readmit(layout.pki, [camera])
        Roles(authority).write_rights()
    reload_broker(layout)


def rotate(layout: Layout, camera: CameraId, out: Path, mqtt: str | None, days: float, within_s: float) -> int:
    """Revoke a camera, write an enrolment with its next key to `out`, and return the generation of that key.

    Raises what `revoke` and `admit` raise. Nothing is revoked if `mqtt` is invalid or `out` cannot be written.
    """
    listener_for_devices(layout, mqtt)
    with writing("--out", out):
        try_replacing(regular_file(out), _ENROLMENT_BYTES)
    with changing_identities(layout.folder):
        generation = revoke(layout, camera, within_s).generation
        admit(layout, camera, out, mqtt, days)
    return generation
