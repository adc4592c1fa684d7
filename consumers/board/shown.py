"""The board in the database: each camera as it was shown, so that a restart reads one row for each and little else.

It is saved beside recording, some cameras at a time. What was recorded since is read again when a recorder starts; a
database without it, of an earlier release, is read through once.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import BindParameter, Connection, Engine, bindparam, delete, func, select

from consumers.board.board import MAX_CAMERAS
from consumers.board.camera import RECENT_PROBES, Camera
from consumers.database.engine import Prepared, upsert
from consumers.database.tables import boots, cameras, frames, shown
from consumers.database.tallies import SHOWN_TO_MS, Tallies, tally
from consumers.reading.rows import CameraRow, FrameRow
from schemas.errors import StateError
from schemas.pointillist_pb2 import CHECKED

SAVED_AT_ONCE: Final = 2_000
REPLAYED: Final = 500_000
"""Frames recorded after the last saving that a start takes one by one: a recorder that saves as it goes leaves fewer,
one of an earlier release that ran in between any number."""
_READ_AT_ONCE: Final = 500


class Shown:
    """Reads and writes the table `shown`. For the database thread only."""

    def __init__(self, engine: Engine, strangers: int) -> None:
        """At most `strangers` cameras are restored that have said something and sent no frame."""
        self._engine = engine
        self._strangers = strangers
        insertion = upsert(engine, shown)
        columns = {name: insertion.excluded[name] for name in ("heard_ms", "state")}
        self._save = Prepared(engine, insertion.on_conflict_do_update(index_elements=[shown.c.camera], set_=columns))
        self._tallies = Tallies(engine)
        of: BindParameter[str] = bindparam("of")
        self._total = Prepared(engine, select(func.sum(boots.c.frames)).where(boots.c.camera == of))
        self._said = Prepared(engine, select(cameras).where(cameras.c.camera == of))

    def save(self, changed: Sequence[Camera], to_ms: int) -> None:
        """Keep these cameras; all frames that were recorded before `to_ms` are then in what is kept."""
        with self._engine.begin() as connection:
            self._keep(connection, changed, to_ms)

    def _keep(self, connection: Connection, changed: Sequence[Camera], to_ms: int) -> None:
        rows = [
            {"camera": camera.name, "heard_ms": camera.last.recorded_ms, "state": _state(camera)}
            for camera in changed
            if camera.last is not None
        ]
        if rows:
            self._save.run_each(connection, rows)
        self._tallies.set(connection, SHOWN_TO_MS, to_ms)

    def purge(self) -> None:
        """Forget the cameras beyond those that a board holds, the longest unheard first."""
        oldest = select(shown.c.camera).order_by(shown.c.heard_ms.desc()).offset(MAX_CAMERAS)
        with self._engine.begin() as connection:
            connection.execute(delete(shown).where(shown.c.camera.in_(oldest)))

    def load(self) -> list[Camera]:
        """The cameras that were heard last, as they were shown, and some that have only said something."""
        with self._engine.begin() as connection:
            to_ms = tally(connection, SHOWN_TO_MS)
            is_near = to_ms and self._recorded_since(connection, to_ms) <= REPLAYED
            found = self._as_saved(connection, to_ms) if is_near else self._from_frames(connection)
            for name, camera in found.items():
                row = self._said.run(connection, of=name).fetchone()
                if row is not None:
                    camera.say(CameraRow(*row))
            strange = select(cameras).order_by(cameras.c.seen_ms.desc()).limit(self._strangers)
            for row in connection.execute(strange):
                if row.camera not in found:
                    found[row.camera] = Camera(row.camera)
                    found[row.camera].say(CameraRow(*row))
            return list(found.values())

    def _recorded_since(self, connection: Connection, to_ms: int) -> int:
        """Frames recorded since then, counted no farther than it matters."""
        some = select(frames.c.recorded_ms).where(frames.c.recorded_ms >= to_ms).limit(REPLAYED + 1).subquery()
        return connection.scalar(select(func.count()).select_from(some)) or 0

    def _as_saved(self, connection: Connection, to_ms: int) -> dict[str, Camera]:
        rows = connection.execute(
            select(shown.c.camera, shown.c.state).order_by(shown.c.heard_ms.desc()).limit(MAX_CAMERAS)
        )
        found = {name: saved_camera(name, state) for name, state in rows}
        # What was saved later than that is in `found` already: only frames after a camera's last one are taken.
        heard = {name: camera.last.recorded_ms for name, camera in found.items() if camera.last is not None}
        later = select(frames).where(frames.c.recorded_ms >= to_ms).order_by(frames.c.recorded_ms)
        changed = set()
        for row in connection.execution_options(yield_per=_READ_AT_ONCE).execute(later):
            frame = FrameRow(*row)
            camera = found.get(frame.camera)
            if camera is None:
                camera = found[frame.camera] = Camera(frame.camera)
            if frame.recorded_ms > heard.get(frame.camera, -1):
                camera.take(frame)
                changed.add(frame.camera)
        for name in changed:
            found[name].frames = self._frames_of(connection, name)
        return found

    def _from_frames(self, connection: Connection) -> dict[str, Camera]:
        """Out of everything that is there: how a database is read that an earlier release wrote."""
        totals: Counter[str] = Counter()
        latest: dict[str, int] = {}
        by_age = select(boots.c.camera, boots.c.boot, boots.c.frames).order_by(boots.c.last_ms)
        for name, boot, count in connection.execute(by_age):
            totals[name] += count
            # A key keeps its place in a dictionary when its value changes: out with it, so that those heard last are
            # last.
            latest.pop(name, None)
            latest[name] = boot
        found = {}
        for name in list(latest)[-MAX_CAMERAS:]:
            camera = found[name] = Camera(name)
            mine = (frames.c.camera == name, frames.c.boot == latest[name])
            last_first = select(frames).where(*mine).order_by(frames.c.seq.desc())
            newest = [FrameRow(*row) for row in connection.execute(last_first.limit(1))]
            since = newest[0].seq - 1000 if newest else 0
            checked = last_first.where(frames.c.seq > since, frames.c.strip == CHECKED).limit(RECENT_PROBES)
            probes = [FrameRow(*row) for row in connection.execute(checked)]
            for frame in [*reversed(probes), *(each for each in newest if each not in probes)]:
                camera.take(frame)
            camera.frames = totals[name]
        to_ms = connection.scalar(select(func.max(frames.c.recorded_ms))) or 0
        self._keep(connection, list(found.values()), to_ms + 1)
        return found

    def _frames_of(self, connection: Connection, name: str) -> int:
        row = self._total.run(connection, of=name).fetchone()
        return int(row[0] or 0) if row is not None else 0


def _state(camera: Camera) -> str:
    return json.dumps(
        [
            camera.frames, camera.last, camera.entropy_bits, "".join("01"[flagged] for flagged in camera.probes),
            camera.boot, camera.level, camera.is_new,
        ]
    )  # fmt: skip


def saved_camera(name: str, state: str) -> Camera:
    """A camera by its row of the table `shown`. StateError for what was not written there by `Shown.save`."""
    try:
        count, last, entropy_bits, probes, boot, level, is_new = json.loads(state)
        row = FrameRow(*last)
    except (TypeError, ValueError):
        raise StateError(f"expected {name} as it was shown in the database, got {state[:80]!r}") from None
    flagged: Iterable[bool] = (each == "1" for each in probes)
    return Camera(
        name, count, row, entropy_bits=entropy_bits, probes=deque(flagged, RECENT_PROBES),
        boot=boot, level=level, is_new=is_new,
    )  # fmt: skip
