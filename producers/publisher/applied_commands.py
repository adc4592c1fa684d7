"""The commands and requests that a camera has applied, in a file in its spool's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from schemas.errors import ConfigError
from schemas.limits import LEAST_FRAMES_PER_SECOND, MAX_FRAMES_PER_SECOND
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import CommandState
from schemas.runtime.atomic_file import replacing

_FILE: Final = "commands.json"
_COMMANDED: Final = ("dropped_per_block", "probe_share", "profile")
_RATE: Final = "frames_per_second"

_log = structlog.get_logger()


def read_command_state(folder: Path, own: Encoding, own_rate: float) -> tuple[CommandState, bool]:
    """Return the applied commands, and whether the file is out of date; no commands when it is missing or damaged.

    A command is left out if the camera's own setting, or its own rate in frames a second, has changed since. The file
    must then be written again: the command would return with the former setting.
    """
    path = folder / _FILE
    try:
        values = json.loads(path.read_text())
        state = ParseDict(values["state"], CommandState())
        before = values["own"]
        changed = [name for name in _COMMANDED if before[name] != getattr(own, name)]
        if before.get(_RATE, own_rate) != own_rate:
            changed.append(_RATE)
    except FileNotFoundError:
        return CommandState(), False
    except (OSError, ValueError, KeyError, TypeError, ParseError) as error:
        _log.warning("command_state_unreadable", file=str(path), error=type(error).__name__)
        return CommandState(), False
    for name in changed:
        state.ClearField(name)
    if "probe_share" in changed:
        state.ClearField("asked_share")
    return state, bool(changed)


def is_paused(folder: Path, own: Encoding, own_rate: float) -> bool:
    """Return whether an applied command pauses the camera whose spool is `folder`."""
    state, _ = read_command_state(folder, own, own_rate)
    return state.HasField("enabled") and not state.enabled


def write_command_state(folder: Path, state: CommandState, own: Encoding, own_rate: float) -> None:
    """Store the applied commands, and the camera's own settings that they override; `OSError` when the file cannot be
    written."""
    before = asdict(own) | {_RATE: own_rate}
    values = {"state": MessageToDict(state, preserving_proto_field_name=True), "own": before}
    path = folder / _FILE
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(values))


def commanded_encoding(own: Encoding, state: CommandState) -> Encoding:
    """Return the camera's `own` encoding with the commands applied; `ConfigError` when the result is out of range."""
    commanded = {name: getattr(state, name) for name in _COMMANDED if state.HasField(name)}
    if state.HasField("asked_share"):
        commanded["probe_share"] = state.asked_share
    return replace(own, **commanded)


def commanded_rate(own_rate: float, state: CommandState) -> float:
    """Return the camera's `own_rate` in frames a second (0: every frame) with the commands applied.

    Raises `ConfigError` when the result is out of range.
    """
    if not state.HasField(_RATE):
        return own_rate
    rate = state.frames_per_second
    if not LEAST_FRAMES_PER_SECOND <= rate <= MAX_FRAMES_PER_SECOND:
        raise ConfigError(
            f"frame rate: expected 1/3600 to {MAX_FRAMES_PER_SECOND} frames a second, got {rate}. Correct it."
        )
    return rate


def overridden(own: Encoding, own_rate: float, state: CommandState) -> dict[str, object]:
    """Return the settings that commands have changed from the camera's `own`, by name.

    Probe requests are left out, because the server withdraws them itself.
    """
    found: dict[str, object] = {
        name: getattr(state, name)
        for name in _COMMANDED
        if state.HasField(name) and getattr(state, name) != getattr(own, name)
    }
    if state.HasField(_RATE) and state.frames_per_second != own_rate:
        found[_RATE] = state.frames_per_second
    if state.HasField("enabled") and not state.enabled:
        found["enabled"] = False
    return found
