"""The rights of each client at the MQTT broker, in mosquitto's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas.topics import BROKER_STATE, BROKER_STATE_ROOT, DISCOVERY_ROOT, HOME_ROOT, ROOT, Channel

_CAMERA_WRITES: Final = (Channel.FRAME, Channel.META, Channel.STATUS, Channel.EVENT)
# Its own status too: it shows a camera that another device uses its name.
_CAMERA_READS: Final = (
    Channel.STATUS,
    Channel.CONFIRM,
    Channel.SETTINGS,
    Channel.PROBES,
    Channel.KEY_REQUEST,
    Channel.REFUSAL,
)
_BRIDGE: Final[dict[str, tuple[Channel, ...]]] = {
    "read": _CAMERA_WRITES,
    "write": (Channel.CONFIRM, Channel.PROBES, Channel.KEY_REQUEST, Channel.REFUSAL),
}
_ADMIN: Final[dict[str, tuple[Channel, ...]]] = {
    "read": (Channel.META, Channel.STATUS),
    "write": (Channel.SETTINGS, Channel.PROBES),
}
_CONSOLE: Final[dict[str, tuple[Channel, ...]]] = {
    "read": (Channel.META,),
    "write": (Channel.SETTINGS, Channel.PROBES),
}
_BROKER_LOG: Final = "$SYS/broker/log/#"
"""The broker's log, from which bridges count messages that it refuses."""
_RIGHTS: Final = {"bridge": _BRIDGE, "admin": _ADMIN, "console": _CONSOLE}

_HOME: Final = (f"{DISCOVERY_ROOT}/device/+/config", f"{HOME_ROOT}/#")
_OTHER_TOPICS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "monitor": tuple(("read", f"{BROKER_STATE_ROOT}/{topic}") for topic in BROKER_STATE),
    # It reads its earlier messages to withdraw outdated ones.
    "announcer": tuple(("readwrite", topic) for topic in _HOME),
    # Home Assistant announces by `status` that it starts or ends.
    "homeassistant": (*(("read", topic) for topic in _HOME), ("readwrite", f"{DISCOVERY_ROOT}/status")),
}
"""Rights of roles that concern no camera's own channels."""


def mqtt_rights(roles: Sequence[str], refused: Sequence[str]) -> str:
    """Return mosquitto's `acl_file` for the `roles`, for `refused` cameras, and for a camera by its certificate's name.

    Everything else is denied. The names of cameras hold a slash and those of roles do not. The pattern for every
    client's own name is therefore a camera's right.
    """
    lines = ["# Written by pointillist; read again at SIGHUP."]
    for role in roles:
        kind = role.partition("-")[0]
        for access, channels in _RIGHTS.get(kind, {}).items():
            lines += _section(role) if access == "read" else []
            lines += [f"topic {access} {ROOT}/+/+/{channel.value}" for channel in channels]
        if kind == "bridge":
            lines.append(f"topic read {_BROKER_LOG}")
    for role in roles:
        others = _OTHER_TOPICS.get(role.partition("-")[0], ())
        lines += _section(role) if others else []
        lines += [f"topic {access} {topic}" for access, topic in others]
    for camera in refused:
        lines += [*_section(camera), "topic deny #"]
    lines += ["", *(f"pattern write {ROOT}/%u/{channel.value}" for channel in _CAMERA_WRITES)]
    lines += [f"pattern read {ROOT}/%u/{channel.value}" for channel in _CAMERA_READS]
    return "\n".join(lines) + "\n"


def _section(user: str) -> list[str]:
    return ["", f"user {user}"]
