"""The window: the frames that are sent and not confirmed, and the choice of those to send again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from producers.publisher.settings import LinkSettings, WindowSettings
from producers.spool import FrameKey

PATIENCE: Final = 3.0
"""Multiple of the recent confirmation delay after which a confirmation is overdue: the bridge delays them while
processors lag."""
LONGEST_S: Final = 60.0
_FADING: Final = 0.95


class Transmission(NamedTuple):
    """The last transmission of a frame: its number among all transmissions, its monotonic time, and the frame's number
    of transmissions so far."""

    number: int
    at: float
    times: int
    payload_bytes: int
    delivered: bool = True
    """Whether the broker had a subscriber, as far as is known."""


class Window:
    """Frames sent and not confirmed, in order of their last transmission. Pure bookkeeping: no clock, no I/O.

    A confirmation covers the highest transmission number among its frames. Frames with lower numbers were passed over
    and are due again after a grace, or at once if the broker had no subscriber for them. The grace doubles twice with
    further transmissions, because a slow bridge must not be flooded. Grace and retries also grow with the delay of
    confirmations. As in TCP (Karn and Partridge 1987), only frames that were sent once measure that delay: for the
    others the confirmed transmission is ambiguous.
    """

    def __init__(self, bounds: WindowSettings, times: LinkSettings) -> None:
        self._bounds = bounds
        self._times = times
        self._sent: dict[FrameKey, Transmission] = {}
        self._number = 0
        self._passed = 0
        self._bytes = 0
        self._retry_s = times.retry_s
        self._retry_at = 0.0
        self._delay_s = 0.0

    def __len__(self) -> int:
        return len(self._sent)

    def __contains__(self, key: FrameKey) -> bool:
        return key in self._sent

    def has_room(self, payload_bytes: int) -> bool:
        """Return whether a frame of this size may be sent for the first time. A single frame may exceed the byte
        limit."""
        if not self._sent:
            return True
        return len(self._sent) < self._bounds.frames and self._bytes + payload_bytes <= self._bounds.bytes

    def sent(self, key: FrameKey, payload_bytes: int, now: float) -> None:
        """Record a transmission of a frame, its first or a further one."""
        last = self._sent.pop(key, None)
        if last is None:
            if not self._sent:
                self._restart_retry(now)
            self._bytes += payload_bytes
        self._number += 1
        times = 1 if last is None else last.times + last.delivered
        self._sent[key] = Transmission(self._number, now, times, payload_bytes)

    def undelivered(self, key: FrameKey) -> None:
        """Note that the broker had no subscriber for the last transmission. It does not count as one.

        The retry does not wait for slow confirmations: no bridge has the frame.
        """
        last = self._sent.get(key)
        if last is not None:
            self._sent[key] = last._replace(delivered=False)
            self._retry_at = min(self._retry_at, last.at + self._times.retry_s)

    def confirmed(self, keys: Iterable[FrameKey], now: float) -> None:
        """Remove the confirmed frames and measure their delay."""
        progress = False
        delay_s = 0.0
        for key in keys:
            transmission = self._sent.pop(key, None)
            if transmission is not None:
                progress = True
                self._bytes -= transmission.payload_bytes
                self._passed = max(self._passed, transmission.number)
                if transmission.times == 1:
                    delay_s = max(delay_s, now - transmission.at)
        if progress:
            self._delay_s = max(delay_s, _FADING * self._delay_s)
            self._restart_retry(now)

    def shed(self, keys: Iterable[FrameKey]) -> None:
        """Remove the frames that the spool has shed; the others stay unchanged."""
        for key in keys:
            transmission = self._sent.pop(key, None)
            if transmission is not None:
                self._bytes -= transmission.payload_bytes

    def all(self) -> list[FrameKey]:
        """Return all unconfirmed frames, to be sent again after a reconnect without session."""
        return list(self._sent)

    def due(self, now: float, unacknowledged: Collection[FrameKey], no_subscribers: bool = False) -> list[FrameKey]:
        """Return the frames to send again now: all that were passed over. If there are none and nothing is confirmed,
        return the frame sent longest ago, of undelivered ones if there are any.

        Frames without the broker's acknowledgement are still in its socket and left out. With `no_subscribers` the
        retry interval does not grow: no bridge has to handle those retries.
        """
        due = []
        for key, last in self._sent.items():
            if last.number >= self._passed:
                break
            grace_s = self._adapted_s(self._times.grace_s) * min(2 ** (last.times - 1), 4)
            if (now - last.at >= grace_s or not last.delivered) and key not in unacknowledged:
                due.append(key)
        if due or not self._sent or now < self._retry_at:
            return due
        undelivered = (key for key, last in self._sent.items() if not last.delivered)
        oldest = next(undelivered, next(iter(self._sent)))
        if oldest in unacknowledged:
            return []
        self._retry_at = now + self._retry_s
        if not no_subscribers:
            self._retry_s = min(2 * self._retry_s, max(self._retry_s, self._times.retry_max_s))
        return [oldest]

    def _restart_retry(self, now: float) -> None:
        self._retry_s = self._adapted_s(self._times.retry_s)
        self._retry_at = now + self._retry_s

    def _adapted_s(self, seconds: float) -> float:
        """Return at least `seconds`, and more if confirmations are slow."""
        return max(seconds, min(PATIENCE * self._delay_s, LONGEST_S))
