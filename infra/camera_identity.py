"""Who an attached camera is: its key, its certificate, and where it belongs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from infra.environment import Environment, accepted_generations, attached_camera_key
from infra.identity_lock import changing_identities
from infra.layout import Layout
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment, enroll
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId, camera_at
from schemas.keys import CameraKey, derive_camera_key
from schemas.transport.access import Tls


@dataclass(frozen=True)
class CameraIdentity:
    """What a camera knows of itself."""

    key: CameraKey
    tls: Tls | None = None
    mqtt: str | None = None
    home: Path | None = None
    """Where its spool lies unless it is told."""


def camera_identity(name: str | None, enrolment: Path | None, state: Path | None) -> CameraIdentity:
    """From an enrolment, else from the environment, else issued by the system of the state folder.

    Raises ConfigError when the name is missing or another than the enrolment's.
    """
    if enrolment is not None:
        found = Enrolment.read(enrolment)
        _check_name(name, found, enrolment)
        return CameraIdentity(found.key, found.tls, found.mqtt, state_home())
    identity = camera_named(name, None, state)
    environment = Environment()
    if state is None:
        return CameraIdentity(attached_camera_key(environment, identity))
    layout = Layout(state.resolve())
    if _has_key(environment):
        given = attached_camera_key(environment, identity)
        _check_key(layout, given)
        return CameraIdentity(given, home=layout.folder)
    return issued_identity(layout, identity)


def camera_named(name: str | None, enrolment: Path | None, state: Path | None) -> CameraId:
    """The camera that an enrolment or a name means; no key is issued. A name without a site means `DEFAULT_SITE`.

    Raises ConfigError when the name is missing or another than the enrolment's, or when the state folder, which would
    issue the key, is no system's.
    """
    if enrolment is not None:
        found = Enrolment.read(enrolment)
        _check_name(name, found, enrolment)
        return found.camera
    if name is None:
        raise ConfigError("--name: expected SITE/CAMERA, got none. Give --name or --enrolment FILE.")
    if state is not None and not _has_key(Environment()):
        _require_system(Layout(state.resolve()))
    return camera_at(name)


def _has_key(environment: Environment) -> bool:
    return environment.camera_key is not None or environment.camera_key_file is not None


def _check_name(name: str | None, found: Enrolment, file: Path) -> None:
    if name is not None and camera_at(name, found.camera.partition("/")[0]) != found.camera:
        raise ConfigError(f"expected {found.camera} as --name, whose enrolment {file} is; got {name}")


def issued_identity(layout: Layout, identity: CameraId) -> CameraIdentity:
    """What a system issues to a camera of its own machine; ConfigError when the folder is no system's."""
    _require_system(layout)
    with changing_identities(layout.folder):
        generations = accepted_generations(layout.generations if layout.generations.is_file() else None)
        layout.issue_key(identity, generations.get(identity, 0))
        key = layout.camera_key(identity)
        if not layout.secure:
            return CameraIdentity(key, home=layout.folder)
        file = layout.enrolment(identity)
        if not file.is_file() or Enrolment.read(file).key.export() != key.export():
            enroll(Authority(layout.pki), key, file)
    return CameraIdentity(key, Enrolment.read(file).tls, home=layout.folder)


def _require_system(layout: Layout) -> None:
    """Raise ConfigError when the folder is no system's."""
    if not layout.secret_file.is_file():
        raise ConfigError(f"expected the state folder of a system, {layout.folder} holds no fleet secret")


def _check_key(layout: Layout, given: CameraKey) -> None:
    """Raise SecretError for a key that the system of the folder does not take, where its secret is there to tell."""
    if not layout.secret_file.is_file():
        return
    issued = derive_camera_key(layout.fleet_secret(), given.camera_id, given.generation)
    if issued.export() != given.export():
        raise SecretError(
            f"expected the key of {given.camera_id} in POINTILLIST_CAMERA_KEY or its _FILE, as the system of "
            f"{layout.folder} issues it; got that of another camera or another fleet"
        )


def resembling(name: str, layout: Layout) -> str | None:
    """A camera that the system of the folder knows and whose name is nearly the same; None for a name that it knows."""
    known = [f"{file.parent.name}/{file.stem}" for file in layout.keys.glob("*/*.key")]
    return None if name in known else next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)


def state_home() -> Path:
    """Where a device keeps what nobody told it a place for."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pointillist"
