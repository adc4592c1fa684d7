"""Detection of a new camera that gets no confirmation. A wrong key is one cause: no server answers its messages."""

from __future__ import annotations

FIRST_ANSWER_S = 4.0
"""Seconds without a confirmation after which an attached camera logs the possible causes."""
_AGAIN = 2
"""Number of connections above which the broker's disconnects count as the cause."""


class FirstAnswer:
    """The wait from the first frame to the first confirmation, overdue at most once. Times are monotonic seconds."""

    def __init__(self, patience_s: float | None) -> None:
        """Set the patience in seconds; None waits without limit."""
        self._patience_s = patience_s
        self._since: float | None = None
        self._settled = patience_s is None

    def start(self, now: float) -> None:
        """Note that a frame was published."""
        if self._since is None:
            self._since = now

    def settle(self) -> None:
        """Note that a confirmation signed under the camera's key has arrived."""
        self._settled = True

    def overdue(self, now: float) -> bool:
        """Return whether the patience has just ended; true once."""
        if self._settled or self._since is None or self._patience_s is None or now - self._since < self._patience_s:
            return False
        self._settled = True
        return True


def silence(camera: str, connected: bool, connections: int, no_subscribers: bool) -> str:
    """Return the likely cause of the silence; `no_subscribers`: the broker had no subscriber for the frames."""
    if connections > _AGAIN:
        return (
            f"the broker has closed {connections - 1} connections: the certificate or login does not belong to "
            f"{camera}, or another device has its name"
        )
    if not connected:
        return "no connection to the broker: it refuses this camera, or cannot be reached"
    if no_subscribers:
        return "the broker has no subscriber for frames: no bridge is connected to it"
    return (
        f"the broker accepts frames, and none is confirmed: the key does not belong to {camera}, the camera has "
        "another name in its fleet, or Kafka is unavailable. With a wrong key, the server has dead letters of the "
        "reason bad_tag"
    )
