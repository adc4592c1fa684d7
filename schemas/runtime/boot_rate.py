"""The rate limit of a camera's boots: one a second, with a burst, by the generic cell rate algorithm (ITU-T I.371)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from schemas.limits import MAX_CAMERAS

BOOTS_PER_S: Final = 1.0
"""Highest long-term rate of one camera's starts."""


class _Account:
    """The last boots of a camera, the latest time of any, and the time at which its rate account is balanced."""

    __slots__ = ("boots", "now_s", "paid_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.paid_s = 0.0
        self.boots: OrderedDict[int, None] = OrderedDict()


class BootRate:
    """Accept the messages of a camera's known boots, and new boots at a bounded rate. Pure bookkeeping: no clock."""

    def __init__(self, burst: int) -> None:
        """Accept `burst` boots at once; remember four times as many for each camera."""
        self._boot_s = 1 / BOOTS_PER_S
        self._burst_s = burst / BOOTS_PER_S
        self._remembered = 4 * burst
        self._accounts: dict[str, _Account] = {}

    def accepts(self, camera: str, boot_id: int, now_s: float) -> bool:
        """Return whether a message of this boot is accepted at `now_s`.

        A time before the camera's latest one counts as the latest: its records come from several logs.
        """
        account = self._accounts.get(camera)
        if account is None:
            account = self._open(camera, now_s)
        if boot_id in account.boots:
            account.boots.move_to_end(boot_id)
            return True
        account.now_s = max(account.now_s, now_s)
        paid_s = max(account.paid_s, account.now_s) + self._boot_s
        if paid_s - account.now_s > self._burst_s:
            return False
        account.paid_s = paid_s
        account.boots[boot_id] = None
        if len(account.boots) > self._remembered:
            account.boots.popitem(last=False)
        return True

    def _open(self, camera: str, now_s: float) -> _Account:
        if len(self._accounts) >= MAX_CAMERAS:
            owing = {name: account for name, account in self._accounts.items() if account.paid_s > now_s}
            self._accounts = owing if len(owing) < MAX_CAMERAS else {}
        account = self._accounts[camera] = _Account()
        return account
