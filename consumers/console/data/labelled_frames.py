"""Frames to label: sealed files, and their labels in the console's database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    LargeBinary,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    select,
    update,
)

from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.data.appearance import Appearance, Vector, sketch, suggestions
from consumers.console.data.sealed_files import SealedFiles
from consumers.database.console_store import metadata
from consumers.database.engine import upsert
from consumers.database.user_rows import MOST_SITES
from consumers.evidence.quarantine import name_of
from consumers.records.batch import FrameKey
from consumers.records.rows import UNSURE
from schemas.batched import batched
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId, Identity
from schemas.keys.sealing import PreviewBox

MOST_BYTES: Final = 256 * 2**20
"""Bytes of all kept frames."""
RESERVE: Final = 1 / 16
"""Share of `MOST_BYTES` that the labels of other sites leave to a site's frames without a label."""
LONGEST_S: Final = 30 * 86_400.0
"""Time in seconds that a frame stays without a label. Labelled frames go by `MOST_BYTES` alone."""
ENOUGH: Final = 5
"""Labels of a class that a training needs. A class with fewer is omitted."""
MOST_CLASSES: Final = 50
"""Maximum number of classes of a site."""
LONGEST_CLASS: Final = 64
_KIND: Final = "lesson"
"""Kind of the sealed files, which no later release can change."""
_FOLDER: Final = "teach"
_MOST_KNOWN: Final = 2_000
"""Labelled frames, the newest ones, that suggestions are made from."""
IMPORTED: Final = "imported/pictures"
"""The camera of imported pictures."""

labelled_frames = Table(
    "console_labelled_frames",
    metadata,
    Column("name", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("camera", "why", "verdict", "label", "who")),
    Column("confidence", Float, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ("boot", "seq", "at_ms", "bytes", "labelled_ms")),
    Column("sketch", LargeBinary, nullable=False),
    Index("console_labelled_frames_by_label", "label", "at_ms"),
)
"""Frames to label. `label` is empty until a user gives one, and `who` is that user.

`labelled_ms` is the time at which the label was given or removed, 0 before the first label.
"""

_changed_ms = case(
    (labelled_frames.c.labelled_ms > labelled_frames.c.at_ms, labelled_frames.c.labelled_ms),
    else_=labelled_frames.c.at_ms,
)
"""Time at which a frame was kept, or its label was given or removed, if that was later."""

frame_features = Table(
    "console_frame_features",
    metadata,
    Column("name", Text, primary_key=True),
    Column("features", LargeBinary, nullable=False),
)
"""Features of kept frames, half precision. Frames that were kept without the general network have none."""

collected = Table(
    "console_collected",
    metadata,
    Column("camera", Text, primary_key=True),
    Column("who", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""Cameras whose frames are collected, the user who chose each, and when."""


@dataclass(frozen=True)
class LabelledFrame:
    """A frame to label. `label` is empty without one."""

    name: str
    camera: str
    why: str
    """The reason for keeping it: `unsure`, `changed`, `new`, `usual`, `wrong` or `imported`."""
    verdict: str
    confidence: float
    label: str
    who: str
    at_ms: int
    suggestion: str = ""


_COLUMNS: Final = [labelled_frames.c[name] for name in LabelledFrame.__dataclass_fields__ if name != "suggestion"]


def newest_labels(connection: Connection, limit: int) -> dict[tuple[str, int, int], str]:
    """Return the newest labels by camera, boot and number of their frames."""
    columns = (labelled_frames.c.camera, labelled_frames.c.boot, labelled_frames.c.seq, labelled_frames.c.label)
    query = (
        select(*columns)
        .where(labelled_frames.c.label != "")
        .order_by(labelled_frames.c.labelled_ms.desc())
        .limit(limit)
    )
    return {(camera, boot, seq): label for camera, boot, seq, label in connection.execute(query)}


class LabelledFrames:
    """Reads and writes frames to label. Every method may block: call them outside the event loop."""

    def __init__(self, engine: Engine, url: str, box: PreviewBox, age_clock_ms: Callable[[], int] = unix_ms) -> None:
        """`url` has the kept files; `box` seals the files. `age_clock_ms` is the clock of purges by age.

        Raises ConfigError for a URL that fsspec cannot open.
        """
        self._files = SealedFiles(url, _FOLDER, box, _KIND)
        self._engine = engine
        self._age_clock_ms = age_clock_ms

    # Cameras

    def cameras(self, sight: Sight = ALL) -> list[str]:
        """Return the cameras of these sites whose frames are collected."""
        mine = sight.where(collected.c.camera)
        rows = self.rows(select(collected.c.camera).where(mine).order_by(collected.c.camera))
        return [row.camera for row in rows]

    def collect(self, camera: str, who: str, *, wanted: bool) -> None:
        """Begin or end the collection of a camera's frames."""
        with self._engine.begin() as connection:
            connection.execute(delete(collected).where(collected.c.camera == camera))
            if wanted:
                connection.execute(collected.insert().values(camera=camera, who=who, at_ms=unix_ms()))

    # Frames

    def keep(
        self,
        key: FrameKey,
        jpeg: bytes,
        why: str,
        verdict: str,
        confidence: float,
        label: str = "",
        who: str = "",
        features: Vector | None = None,
    ) -> str:
        """Store a frame's picture, sealed, and return its name. Storing it again changes its reason alone."""
        name, at_ms = name_of(key), unix_ms()
        small = sketch(jpeg).tobytes()
        size = self._files.write(name, _identity(key), jpeg)
        values = {
            "name": name, "camera": key[0], "boot": key[1], "seq": key[2], "why": why, "verdict": verdict,
            "confidence": confidence, "label": label, "who": who, "at_ms": at_ms, "labelled_ms": at_ms if label else 0,
            "bytes": size, "sketch": small,
        }  # fmt: skip
        with self._engine.begin() as connection:
            again = {"why": why} | ({"label": label, "who": who, "labelled_ms": at_ms} if label else {})
            insertion = upsert(self._engine, labelled_frames).values(values)
            connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=again))
            if features is not None:
                described = {"name": name, "features": features.astype(np.float16).tobytes()}
                connection.execute(upsert(self._engine, frame_features).values(described).on_conflict_do_nothing())
        self.purge()
        return name

    def picture(self, name: str) -> bytes:
        """Return a frame's JPEG; empty bytes if there is none, or if it is damaged or sealed under another key."""
        columns = (labelled_frames.c.camera, labelled_frames.c.boot, labelled_frames.c.seq)
        rows = self.rows(select(*columns).where(labelled_frames.c.name == name))
        return self._files.read(name, _identity(rows[0])) if rows else b""

    def appearances(self, camera: str, most: int) -> list[Appearance]:
        """Return the appearances of a camera's newest frames, the oldest of them first."""
        query = (
            select(labelled_frames.c.sketch, frame_features.c.features, labelled_frames.c.at_ms)
            .outerjoin(frame_features, frame_features.c.name == labelled_frames.c.name)
            .where(labelled_frames.c.camera == camera)
            .order_by(labelled_frames.c.at_ms.desc())
            .limit(most)
        )
        return [
            Appearance(
                np.frombuffer(row.sketch, np.float32),
                None if row.features is None else np.frombuffer(row.features, np.float16).astype(np.float32),
                row.at_ms,
            )
            for row in reversed(self.rows(query))
        ]

    def waiting(self, limit: int, sight: Sight = ALL) -> list[LabelledFrame]:
        """Return the newest frames of these sites without a label, with suggestions once there are enough labels."""
        mine = sight.where(labelled_frames.c.camera)
        columns = [*_COLUMNS, labelled_frames.c.sketch]
        without = select(*columns).where(labelled_frames.c.label == "", mine)
        query = without.order_by(labelled_frames.c.at_ms.desc()).limit(limit)
        rows = self.rows(query)
        newest = select(labelled_frames.c.label, labelled_frames.c.sketch).where(labelled_frames.c.label != "", mine)
        known = self.rows(newest.order_by(labelled_frames.c.labelled_ms.desc()).limit(_MOST_KNOWN))
        suggest = suggestions(known, [row.sketch for row in rows])
        return [replace(LabelledFrame(*row[:-1]), suggestion=each) for row, each in zip(rows, suggest, strict=True)]

    def labelled(self, limit: int, sight: Sight = ALL) -> list[LabelledFrame]:
        """Return the frames of these sites that were labelled last."""
        query = (
            select(*_COLUMNS)
            .where(labelled_frames.c.label != "", sight.where(labelled_frames.c.camera))
            .order_by(labelled_frames.c.labelled_ms.desc())
            .limit(limit)
        )
        return [LabelledFrame(*row) for row in self.rows(query)]

    def labelled_last(self, who: str, sight: Sight = ALL) -> list[str]:
        """Return the names of the frames to which this user gave the last label, several if it was given to several."""
        mine = (labelled_frames.c.label != "", labelled_frames.c.who == who, sight.where(labelled_frames.c.camera))
        newest = select(func.max(labelled_frames.c.labelled_ms)).where(*mine).scalar_subquery()
        query = select(labelled_frames.c.name).where(*mine, labelled_frames.c.labelled_ms == newest)
        return [row.name for row in self.rows(query)]

    def counts(self, sight: Sight = ALL) -> dict[str, int]:
        """Return the number of labelled frames of each class at these sites."""
        query = (
            select(labelled_frames.c.label, func.count().label("frames"))
            .where(labelled_frames.c.label != "", sight.where(labelled_frames.c.camera))
            .group_by(labelled_frames.c.label)
            .order_by(labelled_frames.c.label)
        )
        return {row.label: row.frames for row in self.rows(query)}

    def label(self, names: Sequence[str], label: str, who: str) -> int:
        """Give frames a label; an empty one removes it. Return how many frames there were. Raises ConfigError."""
        check_class(label)
        check_count(label, {site_of(name) for name in names}, self.classes())
        values = {"label": label, "who": who if label else "", "labelled_ms": unix_ms()}
        changed = 0
        with self._engine.begin() as connection:
            for some in batched(names):
                changed += connection.execute(
                    update(labelled_frames).where(labelled_frames.c.name.in_(some)).values(values)
                ).rowcount
        return changed

    def discard(self, names: Sequence[str]) -> None:
        """Delete frames. Unknown names are ignored. Raises StateError if some cannot be deleted; others are."""
        failure: StateError | None = None
        for some in batched(names):
            with self._engine.begin() as connection:
                # Only names from the database become paths, never one that a visitor made up.
                known = list(connection.scalars(select(labelled_frames.c.name).where(labelled_frames.c.name.in_(some))))
            gone, error = self._files.remove_all(known)
            failure = failure or error
            with self._engine.begin() as connection:
                connection.execute(delete(labelled_frames).where(labelled_frames.c.name.in_(gone)))
                connection.execute(delete(frame_features).where(frame_features.c.name.in_(gone)))
            if error is not None and not gone:
                break
        if failure is not None:
            raise failure

    def free_bytes(self) -> int:
        """Return the bytes that more labelled frames may have. Frames without a label are deleted for them."""
        total = select(func.coalesce(func.sum(labelled_frames.c.bytes), 0))
        return MOST_BYTES - int(self.rows(total.where(labelled_frames.c.label != ""))[0][0])

    def classes(self) -> set[tuple[str, str]]:
        """Return the classes of all sites, each with its site in front."""
        query = select(labelled_frames.c.camera, labelled_frames.c.label).where(labelled_frames.c.label != "")
        return {(site_of(row.camera), row.label) for row in self.rows(query.distinct())}

    def rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        """Return the rows of a query of the tables of frames."""
        with self._engine.begin() as connection:
            return connection.execute(query).all()

    def purge(self) -> None:
        """Delete the oldest frames beyond the bounds, those of the site with the most bytes and without a label first.

        If no site has more bytes without a label than the `RESERVE`, the site with the most bytes loses labels too.
        Imported pictures go last.
        """
        before_ms = self._age_clock_ms() - int(LONGEST_S * 1000)
        old = and_(labelled_frames.c.label == "", _changed_ms < before_ms)
        with self._engine.begin() as connection:
            gone = list(connection.scalars(select(labelled_frames.c.name).where(old)))
            columns = (labelled_frames.c.camera, labelled_frames.c.label)
            sums = select(*columns, func.sum(labelled_frames.c.bytes)).where(~old).group_by(*columns)
            held: Counter[_Part] = Counter()
            for camera, label, size in connection.execute(sums):
                held[_Part(site_of(camera), bool(label))] += int(size)
            queues: dict[_Part, Iterator[Row[tuple[str, int]]]] = {}
            while held.total() > MOST_BYTES:
                part = _next_part(held)
                if part not in queues:
                    queues[part] = iter(connection.execute(_frames_of(part).where(~old)))
                frame = next(queues[part], None)
                if frame is None:  # another process has deleted some meanwhile
                    del held[part]
                    continue
                gone.append(frame.name)
                held[part] -= frame.bytes
        if gone:
            self.discard(gone)


class _Part(NamedTuple):
    """The frames of one site with a label, or those without."""

    site: str
    is_labelled: bool


def _frames_of(part: _Part) -> Select[tuple[str, int]]:
    """Return the query of the names and bytes of frames, oldest first."""
    is_labelled = labelled_frames.c.label != ""
    return (
        select(labelled_frames.c.name, labelled_frames.c.bytes)
        .where(Sight(frozenset({part.site})).where(labelled_frames.c.camera))
        .where(is_labelled if part.is_labelled else ~is_labelled)
        .order_by(_changed_ms)
    )


def _next_part(held: Mapping[_Part, int]) -> _Part:
    """Return the part whose oldest frame goes next, of parts with these bytes."""
    sites: Counter[str] = Counter()
    for part, size in held.items():
        sites[part.site] += size
    unlabelled = [part for part, size in held.items() if not part.is_labelled and size > RESERVE * MOST_BYTES]
    return max(
        unlabelled or [part for part, size in held.items() if size > 0],
        key=lambda part: (part.site != site_of(IMPORTED), sites[part.site], not part.is_labelled),
    )


def check_class(label: str) -> None:
    """Raise ConfigError for a class name that a folder or a bundle cannot have."""
    if (
        len(label.encode(errors="surrogatepass")) > LONGEST_CLASS
        or label.startswith(".")
        or label == UNSURE
        or any(not each.isprintable() or each in "/\\" for each in label)
    ):
        raise ConfigError(
            f"class: expected at most {LONGEST_CLASS} bytes of printable UTF-8 without a slash or a leading dot, and "
            f"not `{UNSURE}`, got {label[:80]!r}. Correct it."
        )


def check_count(label: str, sites: Collection[str], classes: Collection[tuple[str, str]]) -> None:
    """Raise ConfigError if a label is one class too many for these sites, or for all, which have these `classes`."""
    bounds = [({each for at, each in classes if at == site}, MOST_CLASSES, "a site") for site in sites]
    bounds.append(({each for _, each in classes}, MOST_SITES * MOST_CLASSES, "all sites"))
    for known, most, where in bounds:
        if label and label not in known and len(known) >= most:
            raise ConfigError(f"class: expected at most {most} at {where}, got another one. Use one of them.")


def _identity(key: FrameKey) -> Identity:
    camera, boot, seq = key
    return Identity(CameraId(camera), boot, seq)
