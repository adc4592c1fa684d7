"""Kept clips: sealed films around alerts and around moments that users chose, beyond Kafka's retention."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Column, Engine, Index, Row, Table, Text, delete, func, select, update

from consumers.console.data.clips import AFTER_MS, LATE_MS
from consumers.console.data.sealed_files import SealedFiles
from consumers.console.settings import ConsoleBounds
from consumers.database.console_store import metadata
from consumers.database.engine import upsert
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.identity import CameraId, Identity
from schemas.keys.sealing import PreviewBox

ALERT: Final = "alert"
SIGHTING: Final = "sighting"
ASKED: Final = "asked"
GIVEN_UP_MS: Final = 86_400_000
"""Age from which on a clip is not made any more."""
_AGAIN_S: Final = 10.0
_LONGEST_S: Final = 600.0
"""Seconds after which a clip that failed is due again: doubled with each failure, from the first to the second."""
_FOLDER: Final = "clips"
_KIND: Final = "clip"

kept_clips = Table(
    "console_clips",
    metadata,
    Column("name", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("camera", "why", "who")),
    *(Column(name, BigInteger, nullable=False) for name in ("at_ms", "made_ms", "bytes")),
    Index("console_clips_by_camera", "camera", "at_ms"),
)
"""Clips by camera and moment. `made_ms` is 0 until the film is made; `bytes` stays 0 if there were no pictures."""


class ClipRequest(NamedTuple):
    """A clip that is still to be made."""

    name: str
    camera: str
    at_ms: int


class KeptClip(NamedTuple):
    """A clip as the page lists it. `bytes` is 0 until it is made."""

    camera: str
    at_ms: int
    why: str
    """The reason for keeping it: `alert`, `sighting` or `asked`."""
    who: str
    bytes: int


class KeptClips:
    """Reads and writes kept clips. Every method may block: call them outside the event loop."""

    def __init__(
        self,
        engine: Engine,
        url: str,
        box: PreviewBox,
        bounds: ConsoleBounds,
        clock_s: Callable[[], float] = time.monotonic,
        age_clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        """`url` has the kept files; `box` seals the films. `age_clock_ms` is the clock of purges by age.

        Raises ConfigError for a URL that fsspec cannot open.
        """
        self._files = SealedFiles(url, _FOLDER, box, _KIND)
        self._engine, self._bounds, self._clock_s = engine, bounds, clock_s
        self._age_clock_ms = age_clock_ms
        self._failed: dict[str, tuple[float, float]] = {}  # by name: due again at, and the delay

    def request(self, moments: Sequence[tuple[str, int]], why: str, who: str = "") -> None:
        """Let clips around these moments of cameras be made.

        An alert needs none if one nearby is kept, will be or was. A backdoor alert does not count those of sightings,
        which are purged first. A user's needs none if a user's is kept or will be.
        """
        if not moments:
            return
        first_ms = min(at_ms for _, at_ms in moments) - AFTER_MS
        query = select(kept_clips.c.camera, kept_clips.c.at_ms).where(kept_clips.c.at_ms >= first_ms)
        if why == ALERT:
            query = query.where(kept_clips.c.why != SIGHTING)
        elif why == ASKED:
            query = query.where(kept_clips.c.why == ASKED, (kept_clips.c.bytes > 0) | (kept_clips.c.made_ms == 0))
        with self._engine.begin() as connection:
            known: defaultdict[str, list[int]] = defaultdict(list)
            for camera, at_ms in connection.execute(query):
                known[camera].append(at_ms)
            for camera, at_ms in moments:
                if all(abs(at_ms - other_ms) > AFTER_MS for other_ms in known[camera]):
                    known[camera].append(at_ms)
                    values = {"why": why, "who": who, "made_ms": 0, "bytes": 0}
                    added = {"name": _name(camera, at_ms), "camera": camera, "at_ms": at_ms} | values
                    insertion = upsert(self._engine, kept_clips).values(added)
                    connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=values))

    def due(self) -> list[ClipRequest]:
        """Return the clips whose last picture is in Kafka by now, and which are not made yet, the oldest first.

        Those that were postponed are left out until their delay is over.
        """
        columns = (kept_clips.c.name, kept_clips.c.camera, kept_clips.c.at_ms)
        past = kept_clips.c.at_ms < unix_ms() - AFTER_MS - LATE_MS
        query = select(*columns).where(kept_clips.c.made_ms == 0, past).order_by(kept_clips.c.at_ms)
        with self._engine.begin() as connection:
            found = [ClipRequest(*row) for row in connection.execute(query)]
        names, now_s = {each.name for each in found}, self._clock_s()
        self._failed = {name: delay for name, delay in self._failed.items() if name in names}
        return [each for each in found if self._failed.get(each.name, (0.0, 0.0))[0] <= now_s]

    def postpone(self, wanted: ClipRequest) -> None:
        """Let a clip that failed be due again later, each time after twice the delay."""
        delay_s = min(2 * self._failed.get(wanted.name, (0.0, _AGAIN_S / 2))[1], _LONGEST_S)
        self._failed[wanted.name] = self._clock_s() + delay_s, delay_s

    def keep(self, wanted: ClipRequest, film: bytes) -> None:
        """Store a clip's film, sealed; empty bytes if there are no pictures."""
        size = self._files.write(wanted.name, _identity(wanted.camera, wanted.at_ms), film) if film else 0
        made = update(kept_clips).where(kept_clips.c.name == wanted.name).values(made_ms=unix_ms(), bytes=size)
        with self._engine.begin() as connection:
            connection.execute(made)

    def film(self, camera: str, at_ms: int, within_ms: int = 0) -> bytes:
        """Return the film around this moment, or the nearest one within `within_ms`; empty bytes if none is kept."""
        near = kept_clips.c.at_ms.between(at_ms - within_ms, at_ms + within_ms)
        query = (
            select(kept_clips.c.name, kept_clips.c.at_ms)
            .where(kept_clips.c.camera == camera, kept_clips.c.bytes > 0, near)
            .order_by(func.abs(kept_clips.c.at_ms - at_ms))
        )
        with self._engine.begin() as connection:
            found = connection.execute(query).first()
        return self._files.read(found.name, _identity(camera, found.at_ms)) if found is not None else b""

    def of(self, camera: str, limit: int) -> list[KeptClip]:
        """Return a camera's newest clips, those without pictures left out."""
        columns = [kept_clips.c[name] for name in KeptClip._fields]
        shown = (kept_clips.c.bytes > 0) | (kept_clips.c.made_ms == 0)
        query = select(*columns).where(kept_clips.c.camera == camera, shown).order_by(kept_clips.c.at_ms.desc())
        with self._engine.begin() as connection:
            return [KeptClip(*row) for row in connection.execute(query.limit(limit))]

    def purge(self) -> None:
        """Delete films beyond the bounds of age and bytes.

        Beyond the bytes, those of sightings go first, then those of alerts, then those of users, and of each the oldest
        of the camera with the most bytes. A clip without its film is noted for a day, so that it is not made again.
        Raises StateError if a film cannot be deleted; unless there are many, the others are deleted all the same.
        """
        old_ms = self._age_clock_ms() - round(self._bounds.clip_age_s * 1000)
        columns = [kept_clips.c[name] for name in ("name", "camera", "at_ms", "why", "bytes")]
        newest = select(*columns).where(kept_clips.c.bytes > 0).order_by(kept_clips.c.at_ms.desc())
        with self._engine.begin() as connection:
            held = list(connection.execute(newest))
        gone = [row.name for row in held if row.at_ms < old_ms]
        held = [row for row in held if row.at_ms >= old_ms]
        excess = sum(row.bytes for row in held) - self._bounds.clip_bytes
        for why in (SIGHTING, ALERT, ASKED):
            by_camera: defaultdict[str, list[Row[Any]]] = defaultdict(list)
            for row in held:
                if row.why == why:
                    by_camera[row.camera].append(row)
            sizes = {camera: sum(row.bytes for row in rows) for camera, rows in by_camera.items()}
            while excess > 0 and any(sizes.values()):
                camera = max(sizes, key=sizes.__getitem__)
                row = by_camera[camera].pop()
                gone.append(row.name)
                sizes[camera] -= row.bytes
                excess -= row.bytes
        removed, failure = self._files.remove_all(gone)
        with self._engine.begin() as connection:
            for some in batched(removed):
                connection.execute(update(kept_clips).where(kept_clips.c.name.in_(some)).values(bytes=0))
            forgotten = kept_clips.c.at_ms < min(old_ms, unix_ms() - GIVEN_UP_MS)
            connection.execute(delete(kept_clips).where(kept_clips.c.bytes == 0, forgotten))
        if failure is not None:
            raise failure


def _name(camera: str, at_ms: int) -> str:
    return f"{camera}/{at_ms:014d}"


def _identity(camera: str, at_ms: int) -> Identity:
    return Identity(CameraId(camera), 0, at_ms)
