"""Signed MQTT commands to cameras. Each is in the audit log with user, time and outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from consumers.console.data.camera_settings import CameraSettingsClient
from consumers.console.data.sent_commands import SentCommands
from consumers.database.user_rows import number_of
from schemas.errors import ConfigError, error_text
from schemas.identity import CameraId, camera_id
from schemas.keys.keys import KeyRing
from schemas.limits import (
    BLOCK_PIXELS,
    LEAST_FRAMES_PER_SECOND,
    MAX_DROP_RATIO,
    MAX_FRAMES_PER_SECOND,
    dropped_per_block,
)
from schemas.messages.frame import PROFILE_NAMES, PROFILES
from schemas.pointillist_pb2 import Command, CommandState, Meta
from schemas.transport.access import MqttAccess

log = structlog.get_logger()

OBEYED_S: Final = 8.0
"""Seconds to wait for a confirmation. The broker retains the command for an absent camera."""
NO_BROKER: Final = "mqtt is missing: start the console with --mqtt to send commands."
"""The refusal of a command to a camera."""
SUPERSEDED: Final = "not sent: a later command replaces it"
SETTINGS: Final = ("dropped_per_block", "probe_share", "profile", "enabled", "frames_per_second")
_KNOWN: Final = "drop_ratio, probe_share, profile, enabled or fps"


def changes_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings to change, by the names of `Command`. Raises ConfigError in one line for invalid values.

    `drop_ratio` is a fraction of the pixels, `probe_share` a fraction of the frames, `profile` a name and `enabled` a
    flag. `fps` is in frames per second; 0 restores the camera's own rate.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "drop_ratio":
            found["dropped_per_block"] = dropped_per_block(_share(name, value, MAX_DROP_RATIO))
        elif name == "probe_share":
            found["probe_share"] = _share(name, value, 1.0)
        elif name == "profile":
            if not isinstance(value, str) or value not in PROFILES:
                raise ConfigError(f"profile: expected {', '.join(PROFILES)}, got {str(value)[:40]!r}")
            found["profile"] = PROFILES[value]
        elif name == "enabled":
            if value not in (True, False, "true", "false"):
                raise ConfigError(f"enabled: expected true or false, got {str(value)[:40]!r}")
            found["enabled"] = value in (True, "true")
        elif name == "fps":
            found["frames_per_second"] = _rate(name, value)
        else:
            raise ConfigError(f"setting: expected {_KNOWN}, got {str(name)[:40]!r}")
    if not found:
        raise ConfigError(f"settings: expected {_KNOWN}, got none")
    return found


def _share(name: str, value: Any, most: float) -> float:
    share = number_of(value)
    if not 0 <= share <= most:
        raise ConfigError(f"{name}: expected a fraction from 0 to {most:g}, got {str(value)[:40]!r}")
    return share


def _rate(name: str, value: Any) -> float:
    rate = number_of(value)
    if rate != 0 and not LEAST_FRAMES_PER_SECOND <= rate <= MAX_FRAMES_PER_SECOND:
        raise ConfigError(
            f"{name}: expected 1/3600 to {MAX_FRAMES_PER_SECOND} frames per second, or 0 for the camera's own rate, "
            f"got {str(value)[:40]!r}"
        )
    return rate


def command_of(held: CommandState | Command | None, changes: Mapping[str, Any]) -> Command:
    """Return a command with these changes and the settings held: the broker retains only the last command.

    After a reset that the camera has not announced, the command resets too.
    """
    command = Command(reset=isinstance(held, Command) and held.reset)
    for name in SETTINGS:
        if held is not None and held.HasField(name):
            setattr(command, name, getattr(held, name))
    for name, value in changes.items():
        setattr(command, name, value)
    return command


def _always() -> bool:
    return True


class Commands:
    """Sends commands to cameras, to each one at a time. Every method blocks: call them outside the event loop."""

    def __init__(self, broker: MqttAccess, keys: KeyRing, engine: Engine) -> None:
        """Prepare. `engine` is the console's own database, which keeps commands that were not announced yet."""
        self._broker = broker
        self._keys = keys
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        """The locks that are held or waited for, by camera."""
        self._locking = Lock()
        self._sent = SentCommands(engine)

    def send(
        self, name: str, changes: Mapping[str, Any], wait_s: float = OBEYED_S, is_due: Callable[[], bool] = _always
    ) -> str:
        """Change settings of a camera. Return the outcome after at most `wait_s`.

        Sends nothing if `is_due` returns false once earlier commands to the camera are done. Raises UserError if the
        broker is unreachable.
        """
        with self._lock_of(name):
            if not is_due():
                return SUPERSEDED
            with self._connected(camera_id(name)) as camera:
                command = command_of(self._commanded_settings(name, camera.meta), changes)
                obeyed = camera.send(command, wait_s)
                self._note_sent(name, command, obeyed)
        return outcome_of(obeyed, wait_s)

    def reset(self, name: str, wait_s: float = OBEYED_S, is_due: Callable[[], bool] = _always) -> str:
        """Reset a camera to its own settings, see `send`."""
        with self._lock_of(name):
            if not is_due():
                return SUPERSEDED
            with self._connected(camera_id(name)) as camera:
                obeyed = camera.reset(wait_s)
                self._note_sent(name, Command(reset=True, issued_ms=camera.issued_ms), obeyed)
        return outcome_of(obeyed, wait_s)

    def _note_sent(self, name: str, command: Command, obeyed: bool) -> None:
        """Keep a command until the camera announces it. An error of the database must not make it count as unsent."""
        try:
            if obeyed:
                self._sent.drop(name)
            else:
                self._sent.keep(name, command)
        except SQLAlchemyError as error:
            log.warning("sent_command_not_kept", camera=name, error=error_text(error))

    def _lock_of(self, name: str) -> Lock:
        with self._locking:
            return self._locks.setdefault(name, Lock())

    def _commanded_settings(self, name: str, meta: Meta | None) -> CommandState | Command | None:
        """Return the settings that were last commanded, whether the camera has announced them or not."""
        announced, sent = meta.command_state if meta is not None else None, self._sent.last(name)
        if sent is None:
            return announced
        if announced is not None and announced.issued_ms >= sent.issued_ms:
            self._sent.drop(name)
            return announced
        return sent

    def _connected(self, camera: CameraId) -> CameraSettingsClient:
        return CameraSettingsClient(self._broker, camera, self._keys)


def outcome_of(obeyed: bool, wait_s: float) -> str:
    """Return the words of the audit log for a command that was sent."""
    return "confirmed" if obeyed else f"sent; the camera has not confirmed within {wait_s:g} s" if wait_s else "sent"


def settings_of(meta: Meta | None) -> dict[str, Any]:
    """Return a camera's announced settings for people, and which of them were commanded."""
    if meta is None:
        return {}
    commanded = meta.command_state
    return {
        "drop_ratio": meta.dropped_per_block / BLOCK_PIXELS,
        "probe_share": meta.probe_share,
        "profile": PROFILE_NAMES.get(meta.profile, str(meta.profile)),
        "enabled": commanded.enabled if commanded.HasField("enabled") else True,
        "frames_per_second": meta.frames_per_second,
        "source": meta.source,
        "software": meta.software,
        "commanded": [name for name in SETTINGS if commanded.HasField(name)],
        "issued_ms": commanded.issued_ms or None,
    }
