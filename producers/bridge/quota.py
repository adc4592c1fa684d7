"""What one camera may send: messages and bytes a second, ahead of which it may be by what honest ones have on the way.

The generic cell rate algorithm (ITU-T I.371, annex A), with two answers instead of one. Each message moves the time at
which its camera has paid for all of them. A camera that is a second ahead of that is not confirmed anything until it is
paid: an honest one has a window, so it waits, and its spool keeps the rest. Who goes on all the same is refused: what
is not confirmed stays with its camera, so nothing is lost by that.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from schemas.errors import Malformed
from schemas.identity import CameraId, camera_id_on_wire
from schemas.limits import CAMERAS_AT_HAND, MAX_MESSAGE_BYTES

AHEAD_S: Final = 1.0
"""So much of its quota a camera may be ahead before its confirmations wait."""
WINDOW_MESSAGES: Final = 512
WINDOW_BYTES: Final = 64 * 2**20 + MAX_MESSAGE_BYTES
"""What may come beyond that: twice what a camera has unconfirmed by default, for after a break it sends that again."""
_CHANNELS: Final = 4
"""Topics that a camera publishes on."""


class _Account:
    """Until when a camera has used its quota up, on the caller's clock."""

    __slots__ = ("bytes_paid_s", "camera", "messages_paid_s")

    def __init__(self, camera: CameraId) -> None:
        self.camera = camera
        self.messages_paid_s = 0.0
        self.bytes_paid_s = 0.0


class Quota:
    """One account for each camera. Pure bookkeeping: no clock, no I/O. Bounded in memory, whoever makes up names."""

    def __init__(self, messages_per_s: float, bytes_per_s: float) -> None:
        """0 is without a bound."""
        self._message_s = 1 / messages_per_s if messages_per_s else 0.0
        self._byte_s = 1 / bytes_per_s if bytes_per_s else 0.0
        self._most_messages_s = AHEAD_S + WINDOW_MESSAGES * self._message_s
        self._most_bytes_s = AHEAD_S + WINDOW_BYTES * self._byte_s
        self._of_topic: dict[bytes, _Account] = {}
        self._of_camera: dict[CameraId, _Account] = {}
        self._refused: Counter[CameraId] = Counter()

    def takes(self, topic: bytes, payload_bytes: int, now_s: float) -> bool:
        """Whether the message is taken, and then paid for; `now_s` never goes back."""
        account = self._of_topic.get(topic) or self._open(topic, now_s)
        messages_s = (account.messages_paid_s if account.messages_paid_s > now_s else now_s) + self._message_s
        bytes_s = (account.bytes_paid_s if account.bytes_paid_s > now_s else now_s) + payload_bytes * self._byte_s
        if messages_s - now_s > self._most_messages_s or bytes_s - now_s > self._most_bytes_s:
            self._refused[account.camera] += 1
            return False
        account.messages_paid_s = messages_s
        account.bytes_paid_s = bytes_s
        return True

    def owes(self, camera: CameraId, now_s: float) -> bool:
        """Whether the camera is ahead of its quota, so that its confirmations wait."""
        account = self._of_camera.get(camera)
        return account is not None and max(account.messages_paid_s, account.bytes_paid_s) - now_s > AHEAD_S

    def take_refused(self) -> Counter[CameraId]:
        """How many messages of each camera were not taken since the last call; of no name of ours, under no name."""
        refused, self._refused = self._refused, Counter()
        return refused

    def _open(self, topic: bytes, now_s: float) -> _Account:
        """The account of the topic's camera; what names none of ours shares one."""
        if len(self._of_topic) >= _CHANNELS * CAMERAS_AT_HAND:
            self._forget_paid(now_s)
        camera = _camera_of(topic)
        if not camera:
            topic = b""
        account = self._of_camera.get(camera)
        if account is None:
            account = self._of_camera[camera] = _Account(camera)
        self._of_topic[topic] = account
        return account

    def _forget_paid(self, now_s: float) -> None:
        """Forget who owes nothing; should everybody owe, all: they are that many only where names are made up."""
        self._of_camera = {
            camera: account
            for camera, account in self._of_camera.items()
            if max(account.messages_paid_s, account.bytes_paid_s) > now_s
        }
        if len(self._of_camera) >= CAMERAS_AT_HAND:
            self._of_camera = {}
        self._of_topic = {
            topic: account for topic, account in self._of_topic.items() if account.camera in self._of_camera
        }


def _camera_of(topic: bytes) -> CameraId:
    """`site/camera` behind `pointillist/v1`, whatever the channel; empty where there is none."""
    try:
        return camera_id_on_wire("/".join(topic.decode(errors="replace").split("/", 4)[2:4]))
    except Malformed:
        return CameraId("")
