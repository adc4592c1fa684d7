"""Revocation of a camera: broker, bridges and processors of a running system reject it without a restart."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local.mosquitto import mqtt_refusal
from infra.local.role_table import read_roles, running
from infra.pki.authority import CRL_FILE, Authority, IssuedCertificate
from infra.pki.refusals import refuse, refused
from infra.pki.roles import Roles, rights_file
from infra.pki.serials import serials
from infra.state_folder import Layout
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import BrokerError, StateError
from schemas.identity import CameraId
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json
from schemas.settings import address, format_address
from schemas.transport.access import Tls

CANARY: Final = "revoked"
"""The name in certificates that are issued only to be revoked."""
_POLL_S: Final = 0.02
BRIEF_DAYS: Final = 0.01
"""Validity of certificates that serve only a revocation."""


@dataclass(frozen=True)
class Revocation:
    """The result of a revocation."""

    certificates: int
    """The number of the camera's certificates that were revoked."""
    generation: int
    """The lowest accepted generation of its keys."""
    broker: str | None
    """The broker that now rejects it; None when none runs on this state folder."""


def revoke(layout: Layout, camera: CameraId, within_s: float = 5.0) -> Revocation:
    """Revoke the keys, the certificates and the rights of `camera`.

    Bridges and processors read the generation of its keys by themselves. The broker reloads its lists. It has done so
    once it rejects a certificate that was made and revoked for this purpose. Then a short-lived certificate of the
    camera's name takes over its session, which closes the connection. Raises StateError when a file lacks the camera
    after it was written. Raises BrokerError when the broker has not followed in time.
    """
    with changing_identities(layout.folder):
        authority = Authority(layout.pki)
        authority.revoked()  # Damaged lists fail before anything is changed.
        numbers = serials(layout.pki, camera)
        generation = _raise_generation(layout, camera)
        broker = running_broker(layout)
        canary = issue_canary(authority) if broker is not None else None
        gone: dict[int, str] = dict.fromkeys(numbers, camera)
        authority.revoke(gone if canary is None else gone | {canary.serial: CANARY})
        refuse(layout.pki, [camera])
        Roles(authority).write_rights()
        _check_written(layout, authority, camera, generation)
    if broker is not None and canary is not None:
        reload_broker(layout)
        await_refusal(broker, authority, canary, within_s)
        close_connection(broker, authority, camera, within_s)
    return Revocation(len(numbers), generation, format_address(broker) if broker is not None else None)


def _check_written(layout: Layout, authority: Authority, camera: CameraId, generation: int) -> None:
    """Read every list again; StateError when one of them lacks the camera."""
    numbers = set(serials(layout.pki, camera))
    lists = {
        layout.generations: layout.accepted_generations().get(camera, 0) >= generation,
        layout.pki / "revoked.json": numbers <= authority.revoked().keys(),
        layout.pki / CRL_FILE: numbers <= authority.on_list(),
        layout.pki / "refused": camera in refused(layout.pki),
    }
    rights = rights_file(layout.pki)
    if rights.parent.is_dir():
        copy = rights.with_name(CRL_FILE)
        lists[rights] = f"user {camera}\ntopic deny #" in rights.read_text()
        lists[copy] = copy.read_bytes() == (layout.pki / CRL_FILE).read_bytes()
    check_lists(lists, camera, f"pointillist revoke {camera} {layout.state_option}")


def check_lists(lists: Mapping[Path, bool], revoked: str, command: str) -> None:
    """Raise StateError for the first file that lacks the revoked camera or role."""
    for file, holds in lists.items():
        if not holds:
            raise StateError(f"{file}: expected {revoked} as revoked, got a file without it. Run `{command}` again.")


def running_broker(layout: Layout) -> tuple[str, int] | None:
    """Return the address of the mosquitto of this state folder; None without one that uses certificates."""
    if running(layout.folder, "mosquitto") is None or not layout.secure:
        return None
    return address(read_roles(layout.folder)["mosquitto"]["listen"])


def reload_broker(layout: Layout) -> None:
    """Make the mosquitto of this state folder, if one runs, reload its lists."""
    process = running(layout.folder, "mosquitto")
    if process is not None and layout.secure:
        process.send(signal.SIGHUP)


def _raise_generation(layout: Layout, camera: CameraId) -> int:
    known = layout.accepted_generations()
    known[camera] = known.get(camera, 0) + 1
    write_json(layout.generations, known, durably=True)
    return known[camera]


def issue_canary(authority: Authority) -> IssuedCertificate:
    """Issue a short-lived certificate to be revoked with others: a broker that rejects it has reloaded its lists."""
    return authority.issue(CANARY, days=BRIEF_DAYS)


def close_connection(broker: tuple[str, int], authority: Authority, name: str, within_s: float) -> None:
    """Close the connection of the client of that name, by a takeover with a short-lived certificate of that name.

    Raises BrokerError when the broker has not answered within `within_s` seconds.
    """
    issued = authority.issue(name, days=BRIEF_DAYS)
    if not _connect_until(broker, authority, issued, within_s, lambda refusal: True):
        raise BrokerError(
            f"MQTT broker at {format_address(broker)}: expected it to close connections of {name} within "
            f"{within_s:g} s, got no answer. Restart the broker."
        )


def await_refusal(broker: tuple[str, int], authority: Authority, canary: IssuedCertificate, within_s: float) -> None:
    """Wait until the broker rejects a revoked certificate; BrokerError when it has not within `within_s` seconds."""
    if not _connect_until(broker, authority, canary, within_s, lambda refusal: refusal is not None):
        raise BrokerError(
            f"MQTT broker at {format_address(broker)}: expected it to reject revoked cameras within {within_s:g} s, "
            "got accepted connections. Restart the broker."
        )


def _connect_until(
    broker: tuple[str, int],
    authority: Authority,
    issued: IssuedCertificate,
    within_s: float,
    is_wanted: Callable[[str | None], bool],
) -> bool:
    """Connect until `is_wanted` accepts the answer, a refusal or None. Return False after `within_s` seconds."""
    end = time.monotonic() + within_s
    with tempfile.TemporaryDirectory() as folder:
        tls = write_client_tls(Path(folder), authority, issued)
        while True:
            try:
                if is_wanted(mqtt_refusal(*broker, within_s, tls)):
                    return True
            except OSError:
                pass  # it is reading its lists or restarting
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)


def write_client_tls(folder: Path, authority: Authority, issued: IssuedCertificate) -> Tls:
    """Write a certificate and its key into `folder`, and return the TLS files of its client."""
    file = folder / "identity.pem"
    write_text(file, issued.key + issued.certificate, private=True)
    return Tls(authority.pem, file)
