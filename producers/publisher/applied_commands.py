"""What a camera remembers of the commands and requests that it obeyed: a file in the folder of its spool."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from schemas.errors import ConfigError
from schemas.frame import Encoding
from schemas.limits import LEAST_FRAMES_PER_SECOND, MAX_FRAMES_PER_SECOND
from schemas.pointillist_pb2 import CommandState
from schemas.runtime.atomic_file import replacing

_FILE: Final = "commands.json"
_COMMANDED: Final = ("dropped_per_block", "probe_share", "profile")
_RATE: Final = "frames_per_second"

_log = structlog.get_logger()


def read_command_state(folder: Path, own: Encoding, own_rate: float) -> CommandState:
    """What was told; nothing when there is no file, or a damaged one.

    What was told over another setting than the camera's `own`, or another rate than its `own_rate` in frames a second,
    is left out: whoever has changed that since has asked for it later than the command did.
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
        return CommandState()
    except (OSError, ValueError, KeyError, TypeError, ParseError) as error:
        _log.warning("command_state_unreadable", file=str(path), detail=type(error).__name__)
        return CommandState()
    for name in changed:
        state.ClearField(name)
    if "probe_share" in changed:
        state.ClearField("asked_share")
    return state


def write_command_state(folder: Path, state: CommandState, own: Encoding, own_rate: float) -> None:
    """Keep what was told, and over which own settings; `OSError` when the file cannot be written."""
    before = asdict(own) | {_RATE: own_rate}
    values = {"state": MessageToDict(state, preserving_proto_field_name=True), "own": before}
    path = folder / _FILE
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(values))


def commanded_encoding(own: Encoding, state: CommandState) -> Encoding:
    """The camera's `own` settings, but for what it was told; `ConfigError` when that is out of its range."""
    commanded = {name: getattr(state, name) for name in _COMMANDED if state.HasField(name)}
    if state.HasField("asked_share"):
        commanded["probe_share"] = state.asked_share
    return replace(own, **commanded)


def commanded_rate(own_rate: float, state: CommandState) -> float:
    """The camera's `own_rate` in frames a second, 0 for all that come, but for what it was told.

    `ConfigError` when that is out of its range.
    """
    if not state.HasField(_RATE):
        return own_rate
    rate = state.frames_per_second
    if not LEAST_FRAMES_PER_SECOND <= rate <= MAX_FRAMES_PER_SECOND:
        raise ConfigError(f"expected 1/3600 to {MAX_FRAMES_PER_SECOND} frames a second, got {rate}")
    return rate


def overridden(own: Encoding, own_rate: float, state: CommandState) -> dict[str, object]:
    """What commands have set otherwise than the camera's `own` settings, by name.

    Requests for probes are left out: they are taken back by themselves.
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
