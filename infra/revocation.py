"""Revoking a camera: broker, bridges and processors of a running system refuse it, without a restart of any."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from infra.environment import accepted_generations
from infra.layout import Layout
from infra.local.files import write_json
from infra.local.mosquitto import mqtt_refusal
from infra.local.role_table import running
from infra.pki.authority import Authority, Issued, write_private
from infra.pki.enrolment import serials
from infra.pki.refusals import refuse
from infra.pki.roles import Roles
from schemas.errors import BrokerError
from schemas.identity import CameraId
from schemas.runtime.access import Tls

_CANARY: Final = "revoked"
_LOOK_S: Final = 0.02
_BRIEF_DAYS: Final = 0.01


@dataclass(frozen=True)
class Revocation:
    """What a revocation did."""

    certificates: int
    """So many of the camera's were made worthless."""
    generation: int
    """The lowest generation of its keys that is accepted from now on."""
    broker: str | None
    """The broker that refuses it now; None when none runs on this state folder."""


def revoke(layout: Layout, camera: CameraId, within_s: float = 5.0) -> Revocation:
    """Let the certificates, the rights and the keys of `camera` count no more.

    First the keys: bridges and processors look for that by themselves. Then the broker, which is asked to read its
    lists again, and has done so when it refuses a certificate that was made and revoked for this; then the connection
    of the camera is taken over, so that it ends. Raises BrokerError when the broker has not done so in time.
    """
    authority = Authority(layout.pki)
    generation = _raise_generation(layout, camera)
    canary = authority.issue(_CANARY, days=_BRIEF_DAYS)
    numbers = serials(layout.pki, camera)
    authority.revoke({**dict.fromkeys(numbers, camera), _serial(canary): _CANARY})
    refuse(layout.pki, [camera])
    Roles(authority).write_rights()
    broker = reload_broker(layout)
    if broker is not None:
        _until_refused(broker, authority, canary, within_s)
        with tempfile.TemporaryDirectory() as folder:
            own = _tls(Path(folder), authority, authority.issue(camera, days=_BRIEF_DAYS))
            mqtt_refusal(*broker, within_s, own)
    place = f"{broker[0]}:{broker[1]}" if broker is not None else None
    return Revocation(len(numbers), generation, place)


def reload_broker(layout: Layout) -> tuple[str, int] | None:
    """Have the mosquitto of this state folder read its lists again; where it listens, None when none runs."""
    process = running(layout.folder, "mosquitto")
    if process is None or not layout.secure:
        return None
    os.kill(process.pid, signal.SIGHUP)
    listen = json.loads((layout.folder / "roles.json").read_text())["mosquitto"]["listen"]
    host, _, port = str(listen).rpartition(":")
    return host, int(port)


def _raise_generation(layout: Layout, camera: CameraId) -> int:
    known = accepted_generations(layout.generations if layout.generations.is_file() else None)
    known[camera] = known.get(camera, 0) + 1
    write_json(layout.generations, known)
    return known[camera]


def _until_refused(broker: tuple[str, int], authority: Authority, canary: Issued, within_s: float) -> None:
    end = time.monotonic() + within_s
    with tempfile.TemporaryDirectory() as folder:
        tls = _tls(Path(folder), authority, canary)
        while True:
            try:
                if mqtt_refusal(*broker, within_s, tls) is not None:
                    return
            except OSError:
                pass  # it is reading its lists, or is being started again
            if time.monotonic() >= end:
                host, port = broker
                raise BrokerError(
                    f"expected the broker at {host}:{port} to refuse what is revoked within {within_s:g} s"
                )
            time.sleep(_LOOK_S)


def _serial(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate.encode()).serial_number


def _tls(folder: Path, authority: Authority, issued: Issued) -> Tls:
    file = folder / "identity.pem"
    write_private(file, issued.key + issued.certificate)
    return Tls(authority.pem, file)
