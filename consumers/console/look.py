"""What only the recorder's database says: how cameras say they are, their counts and evidence, and open alerts.

Read again and again, each time only what was written since, so that it costs as little however many cameras there are.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection, select

from consumers.cameras.camera import Camera, monotonic_ms
from consumers.cameras.episodes import OPEN, Review
from consumers.cameras.open_alerts import newest_alerts, open_episodes
from consumers.cameras.saved import SavedState, read_states
from consumers.cameras.snapshots import saved_camera
from consumers.console.fleet import Fleet
from consumers.console.recorded import Recorded
from consumers.database.tables import cameras, shown
from consumers.reading.rows import CameraRow
from schemas.errors import StateError
from schemas.limits import CAMERAS_AT_HAND
from schemas.runtime.health import Health

LOOK_S: Final = 1.0
_OVERLAP_MS: Final = 5_000
"""Read again, for transactions that were begun before others and ended after them."""

log = structlog.get_logger()


@dataclass
class Seen:
    """What one look has found."""

    said: list[CameraRow] = field(default_factory=list)
    saved: list[Camera] = field(default_factory=list)
    states: list[SavedState] = field(default_factory=list)
    alerts: Mapping[str, list[str]] = field(default_factory=dict)
    """The newest alert of each episode that nobody has closed, by camera, the newest last."""
    acknowledged: set[str] = field(default_factory=set)
    """Cameras all of whose episodes are acknowledged."""


class Look:
    """Reads the recorder's database in a thread of its own and tells the fleet."""

    def __init__(
        self,
        recorded: Recorded,
        fleet: Fleet,
        reviews: dict[str, Review],
        health: Health,
        published_ms: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """`reviews` is the console's own and changes with every decision; `published_ms` is when models went live."""
        self._recorded = recorded
        self._fleet = fleet
        self._reviews = reviews
        self._published_ms = published_ms
        self._health = health
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._said_to_ms = 0
        self._saved_to_ms = 0
        self._states_to_ms = 0
        health.set("database", False, "not read yet")

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                seen = await loop.run_in_executor(self._thread, self.look)
            except Exception as error:  # drivers have many names for a database that is away, or not made yet
                self._health.set("database", False, str(error)[:200] or type(error).__name__)
                self._said_to_ms = self._saved_to_ms = self._states_to_ms = 0
            else:
                self._health.set("database", True)
                self.tell(seen)
            await asyncio.sleep(LOOK_S)

    def tell(self, seen: Seen) -> None:
        """Tell the fleet what was seen."""
        now_ms, clock_ms = time.time_ns() // 10**6, monotonic_ms()
        for camera in seen.saved:
            if camera.last is not None:
                self._fleet.correct(camera, max(0, now_ms - camera.last.recorded_ms), clock_ms)
        for row in seen.said:
            self._fleet.say(row, max(0, now_ms - row.state_ms), clock_ms)
        self._fleet.judge(seen.states)
        self._fleet.alert(seen.alerts, seen.acknowledged)

    def look(self) -> Seen:
        """Read what was written since the last look. For the thread of its own."""
        with self._recorded.engine().begin() as connection:
            said = self._said(connection)
            saved = self._saved(connection)
            looked_ms = time.time_ns() // 10**6
            states = read_states(connection, self._states_to_ms and self._states_to_ms - _OVERLAP_MS)
            self._states_to_ms = looked_ms
            newest = newest_alerts(connection)
        # A copy: decisions are added from another thread.
        standing = open_episodes(newest, dict(self._reviews), self._published_ms())
        opened: defaultdict[str, list[str]] = defaultdict(list)
        for each in reversed(standing):
            opened[each.camera].append(each.newest)
        acknowledged = opened.keys() - {each.camera for each in standing if each.state == OPEN}
        return Seen(said, saved, states, opened, acknowledged)

    def _said(self, connection: Connection) -> list[CameraRow]:
        since = cameras.c.seen_ms >= self._said_to_ms - _OVERLAP_MS
        newest = select(cameras).where(since).order_by(cameras.c.seen_ms.desc()).limit(CAMERAS_AT_HAND)
        rows = [CameraRow(*row) for row in connection.execute(newest)]
        self._said_to_ms = max([self._said_to_ms, *(row.seen_ms for row in rows)])
        return rows

    def _saved(self, connection: Connection) -> list[Camera]:
        since = shown.c.heard_ms >= self._saved_to_ms - _OVERLAP_MS
        newest = select(shown).where(since).order_by(shown.c.heard_ms.desc()).limit(CAMERAS_AT_HAND)
        found = []
        for name, heard_ms, state in connection.execute(newest):
            self._saved_to_ms = max(self._saved_to_ms, heard_ms)
            try:
                found.append(saved_camera(name, state))
            except StateError as error:  # of another release; its next frame says more
                log.warning("camera_not_read", error=str(error))
        return found

    def close(self) -> None:
        """End what is being read."""
        self._thread.shutdown(wait=True, cancel_futures=True)
