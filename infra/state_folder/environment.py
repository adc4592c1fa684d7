"""Secrets and paths from environment variables, never from a process's arguments."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId, camera_id
from schemas.keys.keys import CameraKey, KeyRing
from schemas.keys.roots import Role, Roots
from schemas.transport.access import fault_of


class Environment(BaseSettings):
    """Variables with the prefix `POINTILLIST_`."""

    model_config = SettingsConfigDict(env_prefix="POINTILLIST_", extra="ignore")

    fleet_secret: SecretStr | None = None
    """At least 32 hexadecimal digits."""
    fleet_secret_file: Path | None = None
    """A file that holds the fleet secret."""
    role_secret: SecretStr | None = None
    """The secret of one role, as `pointillist key --role` prints it."""
    role_secret_file: Path | None = None
    generations_file: Path | None = None
    """JSON {"site/camera": lowest accepted key generation}: raising a number revokes a stolen key."""
    camera_key: SecretStr | None = None
    """The key of an attached camera, as `pointillist key` prints it."""
    camera_key_file: Path | None = None
    mqtt_tls: Path | None = None
    """Folder with ca.crt for the MQTT broker, and with tls.crt and tls.key for a client certificate."""
    mqtt_login: SecretStr | None = None
    """user:password"""
    mqtt_login_file: Path | None = None
    kafka_tls: Path | None = None
    """The same for Kafka."""
    kafka_login: SecretStr | None = None
    """user:password, by SCRAM-SHA-512."""
    kafka_login_file: Path | None = None
    share_file: Path | None = None
    """A file with the name of the bridges' shared subscription, which is a secret on a broker open to strangers."""
    data: Path | None = None
    """Folder of the data sets."""
    trace: Path | None = None
    """Folder for time stamps along each frame's path; see `schemas.runtime.trace`."""


def read_secret(value: SecretStr | None, file: Path | None, what: str, variable: str) -> str:
    """Return a secret from its variable or its file; `SecretError` names both when neither is set."""
    if value is not None:
        return value.get_secret_value().strip()
    if file is None:
        raise SecretError(
            f"{what} is missing: expected it in {variable} or in the file that {variable}_FILE names. Set one of them."
        )
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(
            f"{what}: expected a readable file, got {file}: {fault_of(error)}. Correct {variable}_FILE."
        ) from None


def fleet_secret(environment: Environment) -> bytes:
    """Return the fleet secret as bytes."""
    return parse_fleet_secret(
        read_secret(
            environment.fleet_secret, environment.fleet_secret_file, "the fleet secret", "POINTILLIST_FLEET_SECRET"
        )
    )


def parse_fleet_secret(text: str) -> bytes:
    """Read the hexadecimal digits of a fleet secret; `SecretError` names the form, and never quotes the text."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        raise SecretError("the fleet secret: expected hexadecimal digits, got other characters. Correct it.") from None
    if len(secret) < 16:
        raise SecretError(
            f"the fleet secret: expected at least 32 hexadecimal digits, got {2 * len(secret)}. Correct it."
        )
    return secret


def role_roots(environment: Environment, role: Role) -> Roots:
    """Return a role's root keys: from its own secret, else those that it needs of the fleet secret and no more."""
    if environment.role_secret is not None or environment.role_secret_file is not None:
        text = read_secret(
            environment.role_secret,
            environment.role_secret_file,
            f"the secret of the role {role}",
            "POINTILLIST_ROLE_SECRET",
        )
        return Roots.from_export(text, role)
    if environment.fleet_secret is None and environment.fleet_secret_file is None:
        raise SecretError(
            f"the secret of the role {role} is missing: expected POINTILLIST_ROLE_SECRET(_FILE), or "
            f"POINTILLIST_FLEET_SECRET(_FILE). Set one of them: `pointillist key --role {role}` prints the first."
        )
    return Roots.of_fleet(fleet_secret(environment)).of(role)


def key_ring(environment: Environment, role: Role) -> KeyRing:
    """Return the keys of a role."""
    return KeyRing(role_roots(environment, role), accepted_generations(environment.generations_file))


def accepted_generations(file: Path | None) -> dict[str, int]:
    """Return the lowest accepted key generation of each camera that is not at zero."""
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(
            f"POINTILLIST_GENERATIONS_FILE: expected a readable file, got {file}: {error.strerror}. Correct the path."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{file}: expected JSON, got {error}. Correct the file.") from None
    if not isinstance(content, dict) or not all(isinstance(v, int) and v >= 0 for v in content.values()):
        raise ConfigError(
            f'{file}: expected {{"site/camera": generation}} with whole numbers, got another form. Correct the file.'
        )
    return {str(camera_id(name)): generation for name, generation in content.items()}


def attached_camera_key(environment: Environment, camera: CameraId) -> CameraKey:
    """Return the key of one attached camera."""
    text = read_secret(
        environment.camera_key, environment.camera_key_file, "the camera's key", "POINTILLIST_CAMERA_KEY"
    )
    return CameraKey.from_export(camera, text)
