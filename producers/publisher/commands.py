"""Settings that the server may change while the camera runs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Final, TypeVar

import structlog

from producers.publisher.applied_commands import (
    commanded_encoding,
    commanded_rate,
    overridden,
    read_command_state,
    write_command_state,
)
from producers.publisher.order_times import OrderTimes
from schemas.clock import unix_ms
from schemas.errors import ConfigError
from schemas.keys.keys import CameraKey
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import Encoding, open_own_message
from schemas.pointillist_pb2 import Command, CommandState, KeyRequest, ProbeRequest

_log = structlog.get_logger()

Order = TypeVar("Order", Command, ProbeRequest)

_COMMAND: Final = Command.__name__
_REQUEST: Final = ProbeRequest.__name__

_MOST_EARLY: Final = 8
"""Maximum number of waiting orders of a kind. Beyond it, the oldest is dropped, but never the last one to arrive."""


def _issued_ms(order: Command | ProbeRequest) -> int:
    return order.issued_ms


class CameraControl:
    """The settings in force of a camera: encoding, rate, and whether it is enabled. Commands override its own settings.

    `folder` stores the applied commands, so neither a restart nor a replayed command reverts them. If they cannot be
    written, they still hold, and `persist` tries again. A command issued in the future waits for its time: once
    applied, it would exclude all commands issued before. Commands affect later frames only.
    """

    def __init__(
        self,
        folder: Path,
        key: CameraKey,
        encoding: Encoding,
        clock_ms: Callable[[], int] = unix_ms,
        *,
        rate: float = 0.0,
    ) -> None:
        """`rate` is the camera's own in frames a second, 0 for every frame."""
        self.key_wanted: tuple[int, int] | None = None
        """Boot id and sequence number of the key frame that the server requested last.

        For profiles whose frames depend on a key frame: if their key frame is this one, the next frame is a key frame.
        """
        self._folder = folder
        self._key = key
        self._own = encoding
        self._own_rate = rate
        self._clock_ms = clock_ms
        self._early: dict[str, list[Command | ProbeRequest]] = {}
        """Orders whose time has not come, by kind and in the order of their arrival."""
        self.state = CommandState()
        """The applied commands; read-only."""
        self.encoding = encoding
        self.enabled = True
        self.rate = rate
        """Frames a second, 0 for every frame."""
        self.on_rate: Callable[[], None] = lambda: None
        """Called when `rate` has changed."""
        state, times, self._unwritten = read_command_state(folder, encoding, rate)
        self._command_times = times.get(_COMMAND, OrderTimes([(state.issued_ms, state.issued_ms)]))
        self._request_times = times.get(_REQUEST, OrderTimes([(state.asked_ms, state.asked_ms)]))
        self._has_command = self._unwritten
        """Whether what is not written yet has a command in it, and not only requests for probes."""
        try:
            self._set(state)
        except ConfigError:
            _log.warning("command_rejected", camera=key.camera_id, reason="the stored one is out of range")
        if found := overridden(encoding, rate, self.state):
            _log.warning("settings_overridden", camera=key.camera_id, **found)

    def command(self, payload: bytes) -> bool:
        """Apply a signed command if it is newer than the last one, and return whether it was applied.

        Raises `WireError` for one that is not signed under this camera's key.
        """
        return self._apply(open_own_message(Command, self._key, payload), self._commanded)

    def probe_request(self, payload: bytes) -> bool:
        """Apply a signed probe request if it is newer than the last setting of the probe share; returns as `command`
        does."""
        return self._apply(open_own_message(ProbeRequest, self._key, payload), self._asked)

    def apply_due(self) -> bool:
        """Apply a command whose time has come, and return whether there was one."""
        obeyed = False
        for kind, held in list(self._early.items()):
            due = [each for each in held if each.issued_ms <= self._clock_ms() + MAX_AHEAD_MS]
            if not due:
                continue
            # A clock that is set makes all due at once. One that is not due counts only if it has come later.
            newest = max(due, key=_issued_ms)
            later = [each for each in held[held.index(newest) :] if each.issued_ms > newest.issued_ms]
            if isinstance(newest, Command):
                obeyed |= self._apply(newest, self._commanded)
            else:
                obeyed |= self._apply(newest, self._asked)
            if later:
                self._early[kind] = later
        return obeyed

    def request_key(self, payload: bytes) -> None:
        """Set `key_wanted` from a signed request.

        A replayed request names an old key frame and has no effect. Raises `WireError` if the request is not signed
        under this camera's key.
        """
        request = open_own_message(KeyRequest, self._key, payload)
        self.key_wanted = (request.boot_id, request.seq)

    def persist(self) -> str | None:
        """Store the applied commands if they are not stored yet; return the error if that fails."""
        if not self._unwritten:
            return None
        try:
            times = {_COMMAND: self._command_times, _REQUEST: self._request_times}
            is_command = self._has_command
            write_command_state(self._folder, self.state, self._own, self._own_rate, times, is_command=is_command)
        except OSError as error:
            return error.strerror or type(error).__name__
        self._unwritten = self._has_command = False
        return None

    def _apply(self, order: Order, obey: Callable[[Order], CommandState | None]) -> bool:
        kind, camera = type(order).__name__, self._key.camera_id
        if order.issued_ms > self._clock_ms() + MAX_AHEAD_MS:
            if kind not in self._early:
                _log.warning("command_postponed", camera=camera, kind=kind, issued_ms=order.issued_ms)
            held = self._early.setdefault(kind, [])
            held.append(order)
            if len(held) > _MOST_EARLY:
                held.remove(min(held[:-1], key=_issued_ms))
            return False
        self._early.pop(kind, None)
        state = obey(order)
        if state is None:
            return False
        try:
            self._set(state)
        except ConfigError as error:
            _log.warning("command_rejected", camera=camera, kind=kind, error=str(error))
            return False
        self._command_times.add(state.issued_ms)
        self._request_times.add(state.asked_ms)
        _log.info("command_applied", camera=camera, kind=kind, issued_ms=order.issued_ms)
        self._unwritten = True
        self._has_command |= isinstance(order, Command)
        if (problem := self.persist()) is not None:
            _log.warning("command_not_kept", camera=camera, error=problem)
        return True

    def _commanded(self, command: Command) -> CommandState | None:
        """Return the state after `command`; None when it is not newer than the last command."""
        if command.issued_ms <= self._command_times.shield_ms(self._clock_ms()):
            return None
        asked_ms = max(command.issued_ms, self._request_times.shield_ms(self._clock_ms()))
        if command.reset:
            state = CommandState(asked_ms=asked_ms)
        else:
            state = deepcopy(self.state)
        state.issued_ms = command.issued_ms
        if command.HasField("dropped_per_block"):
            state.dropped_per_block = command.dropped_per_block
        if command.HasField("profile"):
            state.profile = command.profile
        if command.HasField("enabled"):
            state.enabled = command.enabled
        if command.HasField("frames_per_second"):
            state.frames_per_second = command.frames_per_second
            if not command.frames_per_second:
                state.ClearField("frames_per_second")
        if command.HasField("probe_share"):
            state.probe_share = command.probe_share
            state.asked_ms = asked_ms
            state.ClearField("asked_share")
        return state

    def _asked(self, request: ProbeRequest) -> CommandState | None:
        if request.issued_ms <= self._request_times.shield_ms(self._clock_ms()):
            return None
        state = deepcopy(self.state)
        state.asked_ms, state.asked_share = request.issued_ms, request.probe_share
        return state

    def _set(self, state: CommandState) -> None:
        encoding, rate = commanded_encoding(self._own, state), commanded_rate(self._own_rate, state)
        self.encoding, self.state = encoding, state
        self.enabled = state.enabled if state.HasField("enabled") else True
        if rate != self.rate:
            self.rate = rate
            self.on_rate()
