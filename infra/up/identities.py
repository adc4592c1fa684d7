"""Identities of a run: the fleet's authority, the roles' certificates, the cameras' enrolments."""

from __future__ import annotations

from collections.abc import Sequence

from infra.local.kafka_quorum import SINGLE
from infra.local.service import instance_names
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.enrolment import enrol_missing
from infra.pki.refusals import readmit
from infra.pki.roles import CLIENTS, SERVERS, Roles, share_name
from infra.state_folder import Layout, issue_role_secrets
from infra.state_folder.identity_lock import changing_identities
from infra.up.console_address import CERTIFICATE, certificate_hosts
from infra.up.listener import parse_listener
from infra.up.settings import UpSettings
from schemas.identity import CameraId
from schemas.runtime.json_files import write_json


def prepare_identities(layout: Layout, cameras: Sequence[CameraId], settings: UpSettings) -> None:
    """Issue the secrets, keys and certificates that are missing, due for renewal or revoked; valid ones stay.

    Raises StateError if the authority's own certificate is not valid now.
    """
    with changing_identities(layout.folder):
        issue_role_secrets(layout.roles, layout.fleet_secret())
        layout.signer()
        issue_camera_keys(layout, cameras)
        if not settings.plain:
            _prepare_certificates(layout, cameras, settings)


def issue_camera_keys(layout: Layout, cameras: Sequence[CameraId]) -> None:
    """Issue the keys of `cameras` that are missing or revoked, and write the file of generations if it is missing."""
    if not layout.generations.exists():
        write_json(layout.generations, {}, durably=True)
    generations = layout.accepted_generations()
    for camera in cameras:
        layout.issue_key(camera, generations.get(camera, 0))


def _prepare_certificates(layout: Layout, cameras: Sequence[CameraId], settings: UpSettings) -> None:
    several = [*instance_names("bridge", settings.bridges), *(f"processor-{n + 1}" for n in range(settings.processors))]
    several += instance_names(SINGLE, settings.kafka_nodes)
    authority = Authority(layout.pki) if (layout.pki / "ca.crt").exists() else Authority.create(layout.pki)
    authority.check_validity()
    share_name(layout.pki)
    readmit(layout.pki, cameras)
    roles = Roles(authority)
    roles.ensure(dict.fromkeys((*SERVERS, *CLIENTS, *several)), LOCAL_HOSTS)
    if settings.listen is not None:
        roles.ensure(["mosquitto"], (*LOCAL_HOSTS, parse_listener(settings.listen)[0]))
    if hosts := certificate_hosts(settings):
        roles.ensure([CERTIFICATE], hosts)
    enrol_missing(layout, authority, cameras)
