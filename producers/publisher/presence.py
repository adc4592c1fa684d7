"""A camera's retained `meta` and `status`, and the detection of another device with the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from schemas.keys.keys import CameraKey
from schemas.messages.camera_status import LAST_MESSAGE, turn
from schemas.messages.frame import open_own_message, sign_message
from schemas.pointillist_pb2 import DEGRADED, ENDED, OFFLINE, ONLINE, PAUSED, Meta, State, Status
from schemas.topics import Channel, mqtt_topic

_log = structlog.get_logger()
_CONFLICT = "name"
_DETAIL_CHARACTERS: Final = 500
"""Maximum characters of a status' reasons: with them it has at most `MAX_ANNOUNCEMENT_BYTES`."""


class Presence:
    """The camera's status: online, degraded with every reason, paused, or ended.

    Two devices with one name receive each other's status. A status that is not retained proves that the other device is
    running. Each then publishes once that it is degraded, and both continue to send: their frames differ in the boot
    id.

    Every message is signed and carries its number within the connection. The last will is signed when the connection is
    made, and carries the highest number of that connection.
    """

    def __init__(
        self,
        key: CameraKey,
        install_id: str,
        boot_id: int,
        meta: Callable[[], Meta],
        publish: Callable[[str, bytes, bool], object],
    ) -> None:
        self.status_topic = mqtt_topic(key.camera_id, Channel.STATUS)
        self._meta_topic = mqtt_topic(key.camera_id, Channel.META)
        self._key = key
        self._connection = 0
        self._message = 0
        self._install_id = install_id
        self._boot_id = boot_id
        self._meta = meta
        self._publish = publish
        self._impairments: dict[str, str] = {}
        self._rests: dict[str, str] = {}
        self._ended = ""
        self.longest_gap_s = 0.0
        """The longest intended time between two frames; 0 if it follows from the announced rate."""

    @property
    def detail(self) -> str:
        """The reasons of all impairments."""
        return "; ".join(self._impairments.values())

    @property
    def degraded(self) -> bool:
        """Whether there is an impairment."""
        return bool(self._impairments)

    @property
    def pauses(self) -> str:
        """The reasons of all pauses; empty for a camera that may send."""
        return "; ".join(self._rests.values())

    def will(self) -> tuple[str, bytes]:
        """Return the topic and payload of the last will for a new connection."""
        self._connection, self._message = self._connection + 1, 0
        return self.status_topic, self._status(OFFLINE, LAST_MESSAGE)

    def announce_online(self) -> None:
        """Publish meta and status after connecting. A name conflict must be detected again."""
        self._impairments.pop(_CONFLICT, None)
        self.describe()
        self._publish_status()

    def describe(self) -> None:
        """Publish `meta`, at connect and when a setting has changed."""
        meta = self._meta()
        meta.turn.CopyFrom(turn(self._connection, self._next()))
        self._publish(self._meta_topic, sign_message(self._key, meta), True)

    def announce_offline(self) -> None:
        """Publish the end of the camera's process: offline, or ended if the source has ended."""
        state = ENDED if self._ended else OFFLINE
        self._publish(self.status_topic, self._status(state, self._next()), True)

    def report_fault(self, what: str, detail: str) -> bool:
        """Record an impairment. If it is new, publish the status and return True."""
        if self._impairments.get(what) == detail:
            return False
        self._impairments[what] = detail
        self._publish_status()
        return True

    def clear_fault(self, what: str) -> None:
        """Remove an impairment, and publish the status if there was one."""
        if self._impairments.pop(what, None) is not None:
            self._publish_status()

    def pause(self, what: str, detail: str) -> None:
        """Publish that the camera is paused on purpose, until `resume`."""
        if self._rests.get(what) != detail:
            self._rests[what] = detail
            self._publish_status()

    def resume(self, what: str) -> None:
        """Publish that the camera sends again, unless another reason to pause remains."""
        if self._rests.pop(what, None) is not None:
            self._publish_status()

    def end(self, detail: str) -> None:
        """Publish that the source has reached its end."""
        self._ended = detail
        self._publish_status()

    def on_status(self, payload: bytes, retained: bool) -> None:
        """Check whether another device has sent a status under this camera's name.

        Raises `WireError` for one that is not signed under this camera's key.
        """
        if not payload:
            return  # the retained status was cleared
        other = open_own_message(Status, self._key, payload)
        if retained or not other.install_id or other.install_id == self._install_id:
            return
        if other.state == OFFLINE:
            self._impairments.pop(_CONFLICT, None)
            self._publish_status()
        elif _CONFLICT not in self._impairments:
            _log.error(
                "camera_name_conflict", camera=self._key.camera_id, here=self._install_id, there=other.install_id
            )
            self.report_fault(_CONFLICT, f"another device, {other.install_id[:16]}, publishes under this name")
        elif other.state != DEGRADED:
            self._publish_status()

    def _publish_status(self) -> None:
        self._publish(self.status_topic, self._status(self._state(), self._next()), True)

    def _state(self) -> State:
        if self._impairments:
            return DEGRADED
        if self._ended:
            return ENDED
        return PAUSED if self._rests else ONLINE

    def _next(self) -> int:
        self._message += 1
        return self._message

    def _status(self, state: State, message: int) -> bytes:
        details = {DEGRADED: self.detail, PAUSED: self.pauses, ENDED: self._ended}
        status = Status(
            state=state,
            install_id=self._install_id,
            boot_id=self._boot_id,
            detail=details.get(state, "")[:_DETAIL_CHARACTERS],
            turn=turn(self._connection, message),
            longest_gap_s=self.longest_gap_s,
        )
        return sign_message(self._key, status)
