"""What a camera says of itself: `meta` and `status`, both retained, and whether another device bears its name."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError

from schemas.identity import CameraId
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, Meta, State, Status
from schemas.topics import Channel, mqtt_topic

_log = structlog.get_logger()
_CONFLICT = "name"


class Presence:
    """The camera's status: online, or degraded with every reason that it has.

    Two devices with one name see each other's status. The first message that was published while this one listens
    proves that the other lives (a retained one may be left over); each then says once that it is degraded, and both
    keep sending: their frames differ in the boot id.
    """

    def __init__(
        self,
        camera_id: CameraId,
        install_id: str,
        boot_id: int,
        meta: Callable[[], Meta],
        publish: Callable[[str, bytes, bool], object],
    ) -> None:
        self.camera_id = camera_id
        self.status_topic = mqtt_topic(camera_id, Channel.STATUS)
        self._meta_topic = mqtt_topic(camera_id, Channel.META)
        self._install_id = install_id
        self._boot_id = boot_id
        self._meta = meta
        self._publish = publish
        self._impairments: dict[str, str] = {}

    @property
    def degraded(self) -> bool:
        """Whether anything is impaired."""
        return bool(self._impairments)

    def will(self) -> tuple[str, bytes]:
        """Topic and payload that the broker publishes when the connection breaks."""
        return self.status_topic, self._status(OFFLINE)

    def greet(self) -> None:
        """After each connect: say what this camera is and how. A conflict has to show itself again."""
        self._impairments.pop(_CONFLICT, None)
        self.describe()
        self._say()

    def describe(self) -> None:
        """Publish `meta`, at connect and when a setting has changed."""
        self._publish(self._meta_topic, self._meta().SerializeToString(), True)

    def farewell(self) -> None:
        """Say that the camera goes, of its own will."""
        self._publish(self.status_topic, self._status(OFFLINE), True)

    def impaired(self, what: str, detail: str) -> bool:
        """Something is wrong from now on; published, and true, when that is news."""
        if self._impairments.get(what) == detail:
            return False
        self._impairments[what] = detail
        self._say()
        return True

    def mended(self, what: str) -> None:
        """It is right again."""
        if self._impairments.pop(what, None) is not None:
            self._say()

    def on_status(self, payload: bytes, retained: bool) -> None:
        """A status on this camera's own topic: look whether another device has sent it."""
        try:
            other = Status.FromString(payload)
        except DecodeError:
            return
        if retained or not other.install_id or other.install_id == self._install_id:
            return
        if other.state == OFFLINE:
            self._impairments.pop(_CONFLICT, None)
            self._say()
        elif _CONFLICT not in self._impairments:
            _log.error("camera_name_conflict", camera=self.camera_id, here=self._install_id, there=other.install_id)
            self.impaired(_CONFLICT, f"another device, {other.install_id[:16]}, publishes under this name")
        elif other.state == ONLINE:
            self._say()

    def _say(self) -> None:
        self._publish(self.status_topic, self._status(DEGRADED if self._impairments else ONLINE), True)

    def _status(self, state: State) -> bytes:
        return Status(
            state=state,
            install_id=self._install_id,
            boot_id=self._boot_id,
            at_ms=time.time_ns() // 10**6,
            detail="" if state == OFFLINE else "; ".join(self._impairments.values()),
        ).SerializeToString()
