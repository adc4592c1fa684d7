"""The quota of each camera: messages and bytes a second, with a burst for the frames that an honest camera has in
flight.

The generic cell rate algorithm (ITU-T I.371, annex A), with two thresholds instead of one. Each message advances the
time at which its camera has paid for all of them. A camera more than one second over its rate gets no confirmations
until it is back within it: an honest camera has a window, therefore it waits and spools. Messages beyond the burst
limit are dropped without confirmation, and the camera keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from schemas.errors import MalformedError
from schemas.identity import CameraId, camera_id_on_wire
from schemas.limits import MAX_CAMERAS, MAX_MESSAGE_BYTES
from schemas.runtime.boot_rate import BootRate

AHEAD_S: Final = 1.0
"""Seconds of its quota that a camera may be ahead before its confirmations wait."""
WINDOW_MESSAGES: Final = 512
WINDOW_BYTES: Final = 64 * 2**20 + MAX_MESSAGE_BYTES
"""Burst in bytes beyond that. The default is twice a camera's window, because a camera sends it again after a break."""
BURST_BOOTS: Final = 64
"""Boots of a camera at once, beyond about one a second: after an outage it reports all that were not confirmed."""
_CHANNELS: Final = 4
"""Topics that a camera publishes on."""


class _Account:
    """The times up to which a camera has used its quota, on the caller's clock."""

    __slots__ = ("byte_s", "bytes_paid_s", "camera", "messages_paid_s", "most_bytes_s")

    def __init__(self, camera: CameraId, byte_s: float, most_bytes_s: float) -> None:
        self.camera = camera
        self.byte_s = byte_s
        self.most_bytes_s = most_bytes_s
        self.messages_paid_s = 0.0
        self.bytes_paid_s = 0.0


class Quota:
    """One account for each camera. Pure bookkeeping: no clock, no I/O. Its memory is bounded."""

    def __init__(self, messages_per_s: float, bytes_per_s: float, window_bytes: int = WINDOW_BYTES) -> None:
        """Set the rates; 0 sets no bound. A burst may exceed one second of the rate by `window_bytes`."""
        self._message_s = 1 / messages_per_s if messages_per_s else 0.0
        self._byte_s = 1 / bytes_per_s if bytes_per_s else 0.0
        self._most_messages_s = AHEAD_S + WINDOW_MESSAGES * self._message_s
        self._most_bytes_s = AHEAD_S + window_bytes * self._byte_s
        self._rates: dict[CameraId, float] = {}
        self._of_topic: dict[bytes, _Account] = {}
        self._of_camera: dict[CameraId, _Account] = {}
        self._rejected: Counter[CameraId] = Counter()
        self._boots = BootRate(BURST_BOOTS)

    def accepts(self, topic: bytes, payload_bytes: int, now_s: float) -> bool:
        """Return whether the message is accepted, and charge an accepted one; `now_s` never decreases."""
        account = self._of_topic.get(topic) or self._open(topic, now_s)
        messages_s = (account.messages_paid_s if account.messages_paid_s > now_s else now_s) + self._message_s
        bytes_s = (account.bytes_paid_s if account.bytes_paid_s > now_s else now_s) + payload_bytes * account.byte_s
        if messages_s - now_s > self._most_messages_s or bytes_s - now_s > account.most_bytes_s:
            self._rejected[account.camera] += 1
            return False
        account.messages_paid_s = messages_s
        account.bytes_paid_s = bytes_s
        return True

    def accepts_boot(self, camera: CameraId, boot_id: int, now_s: float) -> bool:
        """Return whether messages of this boot are accepted: the rate of new boots of a camera is bounded."""
        if self._boots.accepts(camera, boot_id, now_s):
            return True
        self._rejected[camera] += 1
        return False

    def count_rejected(self, camera: CameraId) -> None:
        """Count a message that was rejected for another reason."""
        self._rejected[camera] += 1

    def set_rates(self, bytes_per_s: Mapping[CameraId, float]) -> None:
        """Set separate rates for these cameras, with the usual window of a large camera; all other cameras lose
        theirs."""
        self._rates = {camera: 1 / rate if rate else 0.0 for camera, rate in bytes_per_s.items()}
        for account in self._of_camera.values():
            account.byte_s, account.most_bytes_s = self._terms(account.camera)

    def _terms(self, camera: CameraId) -> tuple[float, float]:
        byte_s = self._rates.get(camera)
        if byte_s is None:
            return self._byte_s, self._most_bytes_s
        return byte_s, AHEAD_S + WINDOW_BYTES * byte_s

    def is_over_rate(self, camera: CameraId, now_s: float) -> bool:
        """Return whether the camera is ahead of its quota, so that its confirmations wait."""
        account = self._of_camera.get(camera)
        return account is not None and max(account.messages_paid_s, account.bytes_paid_s) - now_s > AHEAD_S

    def pop_rejected(self) -> Counter[CameraId]:
        """Return the number of dropped messages of each camera since the last call; invalid names count under the empty
        name."""
        rejected, self._rejected = self._rejected, Counter()
        return rejected

    def _open(self, topic: bytes, now_s: float) -> _Account:
        """Return the account of the topic's camera; all topics without a valid camera share one."""
        if len(self._of_topic) >= _CHANNELS * MAX_CAMERAS:
            self._drop_settled(now_s)
        camera = _camera_of(topic)
        if not camera:
            topic = b""
        account = self._of_camera.get(camera)
        if account is None:
            account = self._of_camera[camera] = _Account(camera, *self._terms(camera))
        self._of_topic[topic] = account
        return account

    def _drop_settled(self, now_s: float) -> None:
        """Remove accounts that are within their quota. If none is, remove all: only invented names create that many."""
        self._of_camera = {
            camera: account
            for camera, account in self._of_camera.items()
            if max(account.messages_paid_s, account.bytes_paid_s) > now_s
        }
        if len(self._of_camera) >= MAX_CAMERAS:
            self._of_camera = {}
        self._of_topic = {
            topic: account for topic, account in self._of_topic.items() if account.camera in self._of_camera
        }


def _camera_of(topic: bytes) -> CameraId:
    """Return `site/camera` after `pointillist/v1`, for any channel; empty if there is none."""
    try:
        return camera_id_on_wire("/".join(topic.decode(errors="replace").split("/", 4)[2:4]))
    except MalformedError:
        return CameraId("")
