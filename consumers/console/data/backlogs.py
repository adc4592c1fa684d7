"""The frames that wait in cameras' spools, from the ledgers that the recorder has verified and stored."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, select

from consumers.console.access.sight import Sight
from consumers.database.engine import settled_at_ms
from consumers.database.tables import ledgers
from schemas.clock import unix_ms
from schemas.pointillist_pb2 import Ledger

SHED_MS: Final = 60_000
"""Time for which shed frames count as recent."""
LEAST_WAITING: Final = 10
"""Frames up to which a spool is not behind: some are always on their way to Kafka."""
_FIRST_MS: Final = 600_000
"""Age of the ledgers that the first reading takes."""
_AHEAD_MS: Final = 60_000


class Backlog(NamedTuple):
    """The ledger of a camera's newest boot."""

    boot: int
    started_ms: int
    pending: int
    """Frames that are neither confirmed nor shed."""
    shed: int
    taken_ms: int
    """Time at which the recorder stored it."""

    def follows(self, other: Backlog) -> bool:
        """Return whether it replaces the `other` one, which was read before.

        A boot whose clock was ahead does so for a minute at most.
        """
        is_later = self.started_ms >= other.started_ms or self.taken_ms > other.taken_ms + _AHEAD_MS
        return self.boot == other.boot or is_later


@dataclass(slots=True)
class _Followed:
    newest: Backlog
    shed: int = 0
    shed_ms: int = 0


@dataclass
class Backlogs:
    """The backlogs of cameras, read in steps: each reading takes the ledgers stored since the last one."""

    _to_ms: int = 0
    _followed: dict[str, _Followed] = field(default_factory=dict)

    def read(self, connection: Connection, sight: Sight) -> dict[str, Backlog]:
        """Return the newest ledger of each camera of these sites that was stored since the last call of `note`."""
        now_ms = unix_ms()
        since_ms = settled_at_ms(connection, min(self._to_ms or now_ms - _FIRST_MS, now_ms))
        names = ("camera", "boot", "started_ms", "next", "confirmed_to", "message", "taken_ms")
        recent = select(*(ledgers.c[name] for name in names)).where(ledgers.c.taken_ms >= since_ms)
        found: dict[str, Backlog] = {}
        rows = connection.execute(recent.where(sight.where(ledgers.c.camera)))
        for camera, boot, started_ms, following, confirmed_to, message, taken_ms in rows:
            made = Backlog(boot, started_ms, max(0, following - confirmed_to), _shed(message), taken_ms)
            if camera not in found or made.follows(found[camera]):
                found[camera] = made
        return found

    def note(self, found: dict[str, Backlog], now_ms: int) -> None:
        """Take over what `read` has returned. `now_ms` is on a monotonic clock."""
        for camera, backlog in found.items():
            self._to_ms = max(self._to_ms, backlog.taken_ms)
            followed = self._followed.get(camera)
            if followed is None:
                self._followed[camera] = _Followed(backlog)
                continue
            if not backlog.follows(followed.newest):
                continue
            more = backlog.shed - followed.newest.shed if backlog.boot == followed.newest.boot else 0
            if more > 0:
                followed.shed, followed.shed_ms = self.shed(camera, now_ms) + more, now_ms
            followed.newest = backlog

    def waiting_s(self, camera: str, frames_per_second: float) -> float | None:
        """Return the seconds of frames that wait at this rate; None without a ledger or a rate."""
        followed = self._followed.get(camera)
        if followed is None or frames_per_second <= 0:
            return None
        pending = followed.newest.pending
        return pending / frames_per_second if pending > LEAST_WAITING else 0.0

    def shed(self, camera: str, now_ms: int) -> int:
        """Return the number of recently shed frames."""
        followed = self._followed.get(camera)
        return followed.shed if followed is not None and followed.shed and now_ms - followed.shed_ms < SHED_MS else 0

    def keep(self, cameras: set[str]) -> None:
        """Drop all other cameras."""
        self._followed = {name: each for name, each in self._followed.items() if name in cameras}


def _shed(message: bytes) -> int:
    with suppress(DecodeError):
        return sum(each.last - each.first + 1 for each in Ledger.FromString(message).shed)
    return 0
