"""The identity of an attached camera: its key, its certificate, and its home."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bundles import GENERAL, named_bundles
from infra.local.user_folders import user_folder
from infra.pki.authority import Authority
from infra.pki.enrolment import Enrolment, enrol_missing
from infra.state_folder import Layout
from infra.state_folder.environment import Environment, attached_camera_key
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId, camera_at
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.transport.access import Tls


@dataclass(frozen=True)
class CameraIdentity:
    """The key and certificate of a camera, and its default folder."""

    key: CameraKey
    tls: Tls | None = None
    mqtt: str | None = None
    home: Path | None = None
    """The default folder of its spool."""


def camera_identity(name: str | None, enrolment: Path | None, state: Path | None) -> CameraIdentity:
    """Read the identity from an enrolment, else from the environment, else have the state folder's system issue it.

    Raises ConfigError when the name is missing or differs from the enrolment's.
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
    """Return the camera that an enrolment or a name identifies, without issuing a key. The default site is
    `DEFAULT_SITE`.

    Raises ConfigError when the name is missing or differs from the enrolment's. Raises it too when the state folder,
    which would issue the key, holds no system.
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
        raise ConfigError(
            f"--name: expected {found.camera}, the camera of {file}, got {name}. Correct the name or the enrolment."
        )


def issued_identity(layout: Layout, identity: CameraId) -> CameraIdentity:
    """Issue the identity of a camera on the system's own machine; ConfigError when the folder holds no system."""
    _require_system(layout)
    with changing_identities(layout.folder):
        layout.issue_key(identity, layout.accepted_generations().get(identity, 0))
        key = layout.camera_key(identity)
        if not layout.secure:
            return CameraIdentity(key, home=layout.folder)
        enrol_missing(layout, Authority(layout.pki), [identity])
    return CameraIdentity(key, Enrolment.read(layout.enrolment(identity)).tls, home=layout.folder)


def _require_system(layout: Layout) -> None:
    """Raise ConfigError when the folder holds no system."""
    if not layout.secret_file.is_file():
        raise ConfigError(
            f"state: expected a folder with a fleet secret, got {layout.folder}. Give the state folder of a system."
        )


def _check_key(layout: Layout, given: CameraKey) -> None:
    """Raise SecretError for a key that the folder's system rejects. Without the fleet secret, no key is checked."""
    if not layout.secret_file.is_file():
        return
    issued = derive_camera_key(layout.fleet_secret(), given.camera_id, given.generation)
    if issued.export() != given.export():
        raise SecretError(
            f"POINTILLIST_CAMERA_KEY: expected the key of {given.camera_id} issued by the system of "
            f"{layout.folder}, got one of another camera or fleet. Print it with "
            f"`pointillist key {given.camera_id} {layout.state_option}`."
        )


def known_cameras(layout: Layout) -> set[str]:
    """Return the cameras with a key, a certificate or a revocation in the state folder."""
    files = (*layout.keys.glob("*/*.key"), *(layout.pki / "cameras").glob("*/*.serials"))
    return {f"{file.parent.name}/{file.stem}" for file in files} | layout.accepted_generations().keys()


def resembling(name: str, layout: Layout) -> str | None:
    """Return a known camera with nearly the same name; None if the name itself is known."""
    known = known_cameras(layout)
    return None if name in known else next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)


def require_known(name: CameraId, layout: Layout, remedy: str) -> None:
    """Raise ConfigError, with the remedy, unless the state folder knows the camera."""
    if name in known_cameras(layout):
        return
    near = resembling(name, layout)
    similar = f"; {near} is similar" if near is not None else ""
    raise ConfigError(f"{name}: expected an enrolled camera, got none of this name{similar}. {remedy}")


def simulator_network_note(state: Path) -> str | None:
    """Return a line if `up` serves a small shipped network, whose classes fit no real camera; None if not.

    None too if the state folder has bundles of published models, although they may be candidates or withdrawn.
    """
    layout, bundles = Layout(state.resolve()), named_bundles()
    small = next((name for name in ("scene", "cifar10") if layout.bundle == bundles[name]), None)
    if small is None or (layout.models.is_dir() and any(layout.models.iterdir())):
        return None
    made = "" if GENERAL in bundles else ", which `pointillist bundle create --imagenet` makes"
    return (
        f"this system classifies by the small network `{small}`, whose classes fit no real camera: start `up` with "
        f"--bundle, or with --cameras 0 for the general network{made}"
    )


def state_home() -> Path:
    """Return the default folder for the files of a device."""
    return user_folder("XDG_STATE_HOME", ".local/state")
