"""The commands and requests that a camera has applied, in a file in its spool's folder and in a copy next to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import blake2s
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from producers.publisher.order_times import OrderTimes
from schemas.errors import ConfigError
from schemas.limits import LEAST_FRAMES_PER_SECOND, MAX_FRAMES_PER_SECOND
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import CommandState
from schemas.runtime.atomic_file import replacing, sync

_FILES: Final = ("commands.json", "commands-copy.json")
"""Two files, each with a checksum: a flipped bit must not let a paused camera send again."""
_COMMANDED: Final = ("dropped_per_block", "probe_share", "profile")
_RATE: Final = "frames_per_second"

_log = structlog.get_logger()


class StoredCommands(NamedTuple):
    """The content of the files."""

    state: CommandState
    times: dict[str, OrderTimes]
    """The issue times of the applied orders by their kind, without those of kinds that the files lack."""
    is_stale: bool
    """Whether the files are out of date or one of them is damaged."""


def read_command_state(folder: Path, own: Encoding, own_rate: float) -> StoredCommands:
    """Return the applied commands.

    There are no commands if both files are missing or damaged. A command is left out if the camera's own setting, or
    its own rate in frames a second, has changed since. The files must then be written again: the command would return
    with the former setting.
    """
    found = [_read(folder / name) for name in _FILES]
    values = next((each for each in found if each is not None), None)
    if values is None:
        return StoredCommands(CommandState(), {}, is_stale=False)
    state, before = ParseDict(values["state"], CommandState()), values["own"]
    changed = [name for name in _COMMANDED if before[name] != getattr(own, name)]
    if before.get(_RATE, own_rate) != own_rate:
        changed.append(_RATE)
    for name in changed:
        state.ClearField(name)
    if "probe_share" in changed:
        state.ClearField("asked_share")
    times = {kind: OrderTimes(ranges) for kind, ranges in values.get("applied", {}).items()}
    return StoredCommands(state, times, bool(changed) or None in found)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the values in a file; None if it is missing or damaged."""
    try:
        values = json.loads(path.read_text())
        # Files of earlier releases lack one checksum or both.
        sums = {"sum": _sum(values), "applied_sum": _digest(values.get("applied"))}
        if any(values.get(name, found) != found for name, found in sums.items()):
            raise ValueError("checksum")
        ParseDict(values["state"], CommandState())
        if not values["own"].keys() >= set(_COMMANDED):
            raise KeyError("own")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParseError) as error:
        _log.warning("command_state_unreadable", file=str(path), error=type(error).__name__)
        return None
    return dict(values)


def is_paused(folder: Path, own: Encoding, own_rate: float) -> bool:
    """Return whether an applied command pauses the camera whose spool is `folder`."""
    state = read_command_state(folder, own, own_rate).state
    return state.HasField("enabled") and not state.enabled


def write_command_state(
    folder: Path,
    state: CommandState,
    own: Encoding,
    own_rate: float,
    times: Mapping[str, OrderTimes] = MappingProxyType({}),
    *,
    is_command: bool = True,
) -> None:
    """Store the applied commands with their times, and the camera's own settings that they override; `OSError` when
    the file cannot be written.

    The copy is synced to the disk, so that no power failure can empty both files. It is left as it is when a request
    for probes alone has changed the state: those are frequent, and a sync may take long on a slow disk.
    """
    before = asdict(own) | {_RATE: own_rate}
    values = {"state": MessageToDict(state, preserving_proto_field_name=True), "own": before}
    applied = {kind: each.ranges() for kind, each in times.items()}
    sums = {"sum": _sum(values), "applied_sum": _digest(applied)}
    text = json.dumps(values | {"applied": applied} | sums)
    main, copy = _FILES
    if is_command:
        with replacing(folder / copy) as fresh:
            fresh.write_text(text)
            sync(fresh)
    with replacing(folder / main) as fresh:
        fresh.write_text(text)


def _sum(values: Mapping[str, Any]) -> str:
    """Return the checksum of the state and the own settings."""
    return _digest([values["state"], values["own"]])


def _digest(value: object) -> str:
    return blake2s(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


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
