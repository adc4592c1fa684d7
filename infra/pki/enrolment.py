"""An enrolment: the one file for a camera's device, with everything that identifies the device as that camera.

A PEM file with its private key, its certificate and the fleet's authority. Text lines before them, which readers of PEM
skip, hold the camera's name, its key, and the broker's address.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509

from infra.pki.authority import Authority, common_name
from infra.pki.refusals import refused
from infra.pki.serials import note_serial
from infra.pki.validity import CERTIFICATE_DAYS
from infra.state_folder import Layout, write_secret
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId, camera_id
from schemas.keys.keys import CameraKey
from schemas.transport.access import Tls

_TITLE: Final = "Pointillist enrolment: whoever has this file speaks as this camera."
_BEGIN: Final = "-----BEGIN "


@dataclass(frozen=True)
class Enrolment:
    """The content of an enrolment."""

    camera: CameraId
    key: CameraKey
    mqtt: str | None
    """The broker's `host:port`."""
    tls: Tls
    certificate: x509.Certificate

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read an enrolment; ConfigError when it is none, is damaged, or has expired."""
        found = cls.parse(file)
        if found.certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
            at = f"{found.certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}"
            raise ConfigError(
                f"{file}: expected a valid enrolment of {found.camera}, got one that ended at {at}. Run `pointillist "
                "enroll` again."
            )
        return found

    @classmethod
    def parse(cls, file: Path) -> Self:
        """Read an enrolment, also an expired one; ConfigError when it is none or is damaged."""
        try:
            text = file.read_text()
        except OSError as error:
            raise ConfigError(
                f"{file}: expected a readable enrolment, got {error.strerror}. Correct the path."
            ) from None
        except ValueError:
            raise ConfigError(
                f"{file}: expected an enrolment, got bytes that are no text. Run `pointillist enroll` again."
            ) from None
        head, begin, blocks = text.partition(_BEGIN)
        fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
        if not head.startswith(_TITLE) or not begin or not {"camera", "key"} <= fields.keys():
            raise ConfigError(
                f"{file}: expected an enrolment written by `pointillist enroll`, got another form. Run it again."
            )
        name = camera_id(fields["camera"])
        try:
            own, *authorities = x509.load_pem_x509_certificates((begin + blocks).encode())
            owner = common_name(own)
        except (ValueError, IndexError):
            raise ConfigError(
                f"{file}: expected an enrolment, got damaged certificates. Run `pointillist enroll` again."
            ) from None
        if not authorities or owner != name:
            raise ConfigError(
                f"{file}: expected a certificate of {name} and its authority's, got others. Run `pointillist "
                "enroll` again."
            )
        authority = text[text.rindex(_BEGIN) :]
        return cls(name, CameraKey.from_export(name, fields["key"]), fields.get("mqtt"), Tls(authority, file), own)


def _read_own(layout: Layout, authority: Authority, camera: CameraId) -> Enrolment | None:
    """Return the enrolment of a camera of this machine, if it has the camera's present key and this authority."""
    file = layout.enrolment(camera)
    if not file.is_file():
        return None
    key = layout.camera_key(camera)
    try:
        found = Enrolment.parse(file)
    except (ConfigError, SecretError):  # also one with a key in the form of an earlier release
        return None
    same = found.key.export() == key.export() and (found.tls.authorities or "").strip() == authority.pem.strip()
    return found if same else None


def enroll(
    authority: Authority, key: CameraKey, file: Path, mqtt: str | None = None, days: float = CERTIFICATE_DAYS
) -> None:
    """Write the enrolment of the key's camera to `file`, which only its owner can read, and record its number."""
    name = key.camera_id
    issued = authority.issue(name, days=days)
    lines = [_TITLE, f"camera: {name}", *([f"mqtt: {mqtt}"] if mqtt else []), f"key: {key.export()}"]
    note_serial(authority.folder, name, issued.serial)
    write_secret(file, "\n".join(lines) + "\n" + issued.key + issued.certificate + authority.pem.rstrip())


def enrol_missing(layout: Layout, authority: Authority, cameras: Sequence[CameraId]) -> None:
    """Enrol those `cameras` of this machine that have a key and no enrolment, or one that is due for renewal."""
    with changing_identities(layout.folder):
        for camera in cameras:
            found = _read_own(layout, authority, camera)
            if found is None or not authority.is_current(found.certificate):
                enroll(authority, layout.camera_key(camera), layout.enrolment(camera))


def renew_enrolment(layout: Layout, authority: Authority, camera: CameraId) -> None:
    """Renew the enrolment of a camera of this machine if it is due.

    A camera that was revoked, or enrolled elsewhere with a new key, stays without access.
    """
    with changing_identities(layout.folder):
        found = _read_own(layout, authority, camera)
        if found is None or authority.is_current(found.certificate) or camera in refused(layout.pki):
            return
        enroll(authority, found.key, layout.enrolment(camera))
