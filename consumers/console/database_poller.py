"""Poller of the recorder's database: camera states, counts, evidence and open alerts for the pages.

Each poll reads only the rows written since the last one, so its cost does not grow with the number of cameras.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from consumers.cameras.camera import Camera
from consumers.cameras.episodes import OPEN
from consumers.cameras.open_alerts import muted_cameras, newest_alerts, open_episodes
from consumers.cameras.saved import SavedState, read_states
from consumers.cameras.snapshots import saved_camera
from consumers.conservation.result import read_result
from consumers.console.data.fleet import Fleet, Totals
from consumers.console.data.rollup import DAY_MS
from consumers.database.console_store import Review
from consumers.database.engine import LATE, LATE_S, settled_at_ms
from consumers.database.mutes import Mute, mute_of, read_mutes
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import camera_snapshots, cameras, dead_letters
from consumers.records.rows import CameraRow
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import error_text
from schemas.limits import MAX_CAMERAS
from schemas.runtime.health import Health
from schemas.runtime.worker_threads import WorkerThreads
from schemas.waiting import noticing_delay

POLL_INTERVAL_S: Final = 1.0
MOST_COUNTED: Final = 1_000
"""The newest dead letters are counted up to this number, those of all sites together."""


@dataclass
class PollResult:
    """The result of one poll."""

    statuses: list[CameraRow] = field(default_factory=list)
    saved: list[Camera] = field(default_factory=list)
    states: list[SavedState] = field(default_factory=list)
    alerts: Mapping[str, list[str]] = field(default_factory=dict)
    """The newest alert of each open episode of a backdoor, by camera, newest last.

    Muted episodes of a camera that also has others are left out.
    """
    acknowledged: set[str] = field(default_factory=set)
    """Cameras whose episodes are all acknowledged."""
    muted: Mapping[str, Mute] = field(default_factory=dict)
    """Cameras that are muted, or whose open episodes are all muted."""
    sightings: Mapping[str, str] = field(default_factory=dict)
    """The newest sighting that is open and not muted, by camera."""
    totals: Totals = field(default_factory=Totals)


class DatabasePoller:
    """Polls the recorder's database in its own thread and updates the fleet."""

    def __init__(
        self,
        recorded: RecorderDatabase,
        fleet: Fleet,
        reviews: dict[str, Review],
        health: Health,
        published_ms: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """Set the sources.

        `reviews` is the console's own dictionary and changes with every decision. `published_ms` holds the publication
        times of models.
        """
        self._recorded = recorded
        self._fleet = fleet
        self._reviews = reviews
        self._published_ms = published_ms
        self._health = health
        self._run_in_thread = WorkerThreads(1, "poller")
        self._said_to_ms = 0
        self._saved_to_ms = 0
        self._statuses_before: dict[str, CameraRow] = {}
        self._saved_before: dict[str, tuple[int, str]] = {}
        """The rows of the last poll, which reads most of those of the poll before it again."""
        self._states_to_ms = 0
        health.set("database", False, "not read yet")

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                with noticing_delay(LATE_S, partial(self._health.set, "database", False, LATE)):
                    seen = await self._run_in_thread(self.poll)
            except Exception as error:  # drivers use many errors for an absent or unfinished database
                self._health.set("database", False, error_text(error))
                self._said_to_ms = self._saved_to_ms = self._states_to_ms = 0
                self._statuses_before, self._saved_before = {}, {}
            else:
                self._health.set("database", True)
                self.apply(seen)
            await asyncio.sleep(POLL_INTERVAL_S)

    def apply(self, seen: PollResult) -> None:
        """Apply the result of a poll to the fleet."""
        now_ms, clock_ms = unix_ms(), monotonic_ms()
        for camera in seen.saved:
            if camera.last is not None:
                self._fleet.merge_saved(camera, max(0, now_ms - camera.last.recorded_ms), clock_ms)
        for row in seen.statuses:
            self._fleet.record_status(row, max(0, now_ms - row.state_ms), clock_ms)
        self._fleet.apply_states(seen.states)
        self._fleet.set_alerts(seen.alerts, seen.acknowledged, seen.muted, seen.sightings)
        self._fleet.set_totals(seen.totals)

    def poll(self) -> PollResult:
        """Read the rows written since the last poll. For the poller's own thread."""
        with self._recorded.engine().begin() as connection:
            polled_ms = unix_ms()
            # Rows are written in the present, also after the clock was set back.
            self._said_to_ms, self._saved_to_ms = min(self._said_to_ms, polled_ms), min(self._saved_to_ms, polled_ms)
            statuses = self._read_statuses(connection)
            saved = self._saved(connection)
            states = read_states(connection, max(0, settled_at_ms(connection, self._states_to_ms)))
            self._states_to_ms = polled_ms
            newest = newest_alerts(connection)
            mutes = read_mutes(connection, polled_ms)
            totals = _totals(connection, polled_ms)
        # A copy: another thread adds decisions.
        standing = open_episodes(newest, dict(self._reviews), self._published_ms())
        opened: defaultdict[str, list[str]] = defaultdict(list)
        sightings: dict[str, str] = {}
        unseen = set[str]()
        muted = muted_cameras(standing, mutes)
        for each in reversed(standing):
            is_muted = mute_of(mutes, each.camera, each.alert_ids) is not None
            if each.wanted:
                if each.state == OPEN and not is_muted:
                    sightings[each.camera] = each.newest
            elif not is_muted or each.camera in muted:  # else another episode of the camera counts
                opened[each.camera].append(each.newest)
                unseen |= {each.camera} if each.state == OPEN else set()
        return PollResult(statuses, saved, states, opened, opened.keys() - unseen, muted, sightings, totals)

    def _read_statuses(self, connection: Connection) -> list[CameraRow]:
        since = cameras.c.seen_ms >= settled_at_ms(connection, self._said_to_ms)
        newest = select(cameras).where(since).order_by(cameras.c.seen_ms.desc()).limit(MAX_CAMERAS)
        rows = [CameraRow(*row) for row in connection.execute(newest)]
        self._said_to_ms = max([self._said_to_ms, *(row.seen_ms for row in rows)])
        before, self._statuses_before = self._statuses_before, {row.camera: row for row in rows}
        return [row for row in rows if before.get(row.camera) != row]

    def _saved(self, connection: Connection) -> list[Camera]:
        since = camera_snapshots.c.heard_ms >= settled_at_ms(connection, self._saved_to_ms)
        newest = select(camera_snapshots).where(since).order_by(camera_snapshots.c.heard_ms.desc()).limit(MAX_CAMERAS)
        before, self._saved_before = self._saved_before, {}
        changed = []
        for name, heard_ms, state in connection.execute(newest):
            self._saved_to_ms = max(self._saved_to_ms, heard_ms)
            self._saved_before[name] = heard_ms, state
            if before.get(name) != (heard_ms, state) and (camera := saved_camera(name, state)) is not None:
                changed.append(camera)
        return changed

    def close(self) -> None:
        """Stop reading."""
        self._run_in_thread.close()


def _totals(connection: Connection, now_ms: int) -> Totals:
    newest = select(dead_letters.c.camera).where(dead_letters.c.recorded_ms > now_ms - DAY_MS)
    recent = newest.order_by(dead_letters.c.recorded_ms.desc()).limit(MOST_COUNTED)
    letters = Counter(connection.scalars(recent))
    audited = read_result(connection) or {}
    return Totals(letters, audited.get("frames_lost"))
