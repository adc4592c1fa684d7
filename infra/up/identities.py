"""Who takes part in a run: the fleet's authority, the roles' certificates, the cameras' enrolments."""

from __future__ import annotations

from collections.abc import Sequence

from infra.layout import Layout
from infra.local.kafka_quorum import node_names
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.enrolment import Enrolment, enroll
from infra.pki.refusals import readmit
from infra.pki.roles import CLIENTS, SERVERS, Roles, share_name
from infra.up.processes import names
from infra.up.settings import UpSettings
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId
from schemas.keys import CameraKey


def prepare_identities(layout: Layout, cameras: Sequence[CameraId], settings: UpSettings) -> None:
    """Issue what is missing, has ended or was revoked; what holds stays."""
    authority = Authority(layout.pki) if (layout.pki / "ca.crt").exists() else Authority.create(layout.pki)
    several = [*names("bridge", settings.bridges), *(f"processor-{n + 1}" for n in range(settings.processors))]
    several += node_names(settings.kafka_nodes)
    share_name(layout.pki)
    readmit(layout.pki, cameras)
    Roles(authority).ensure(dict.fromkeys((*SERVERS, *CLIENTS, *several)), LOCAL_HOSTS)
    enrol_missing(layout, authority, cameras)


def enrol_missing(layout: Layout, authority: Authority, cameras: Sequence[CameraId]) -> None:
    """Enrol those `cameras` of this machine, whose keys are there, that have no enrolment which still holds."""
    for camera in cameras:
        key = layout.camera_key(camera)
        if not _enrolled(layout, authority, key):
            enroll(authority, key, layout.enrolment(camera))


def _enrolled(layout: Layout, authority: Authority, key: CameraKey) -> bool:
    """Whether a camera's enrolment is there, holds its present key, and is of this fleet."""
    file = layout.enrolment(key.camera_id)
    if not file.is_file():
        return False
    try:
        found = Enrolment.read(file)
    except (ConfigError, SecretError):  # also one whose key has the form of an earlier release
        return False
    return found.key.export() == key.export() and (found.tls.authorities or "").strip() == authority.pem.strip()
