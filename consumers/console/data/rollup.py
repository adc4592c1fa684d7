"""Sums by minute and hour of each camera in the console's own database, so that a month loads at once.

They come from the recorder's `frames`, read in recording order, each frame once. One transaction holds both the added
sums and the position reached. A minute is that of capture if the camera's clock is plausible. Frames that waited in a
spool during an outage therefore fill the minutes of their capture. If the clock is set back, the position goes back
too, and frames that were recorded by the clock before may count twice. So do those that a recorder records again after
its damaged database was set aside.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    Engine,
    Row,
    Subquery,
    Table,
    bindparam,
    case,
    delete,
    func,
    literal,
    select,
    tuple_,
)

from consumers.database.console_store import NO_ENTROPY, camera_hours, camera_minutes, class_hours, mark, set_mark
from consumers.database.engine import PreparedStatement, settled_at_ms, upsert
from consumers.database.history import LATEST_MS
from consumers.database.tables import frames
from schemas.clock import unix_ms
from schemas.pointillist_pb2 import CHECKED, SHED

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MINUTES_KEPT_MS: Final = 8 * DAY_MS
HOURS_KEPT_MS: Final = 400 * DAY_MS
PURGE_ROWS: Final = 5_000
"""Maximum number of rows of a table that one step of the purge deletes. On SQLite, a step blocks readers."""
_STEPS_MS: Final = (1_000, 6 * HOUR_MS)
_STEP_S: Final = 0.2
"""Target duration of one step in seconds. It sets how much a step reads."""
_TO: Final = "rolled_up_to"
_MOST: Final = ("slowest_ms", "evidence")
_LEAST: Final = ("least_entropy_bits",)
_READ: Final = (
    "camera", "recorded_ms", "frame_bytes", "width", "height", "channels", "strip", "flagged", "confidence",
    "entropy_bits", "threshold_bits", "class_name",
)  # fmt: skip

Sums = dict[str, Any]


@dataclass(frozen=True)
class RollupIncrement:
    """The sums of newly recorded frames, not added yet."""

    minutes: Sequence[Sums]
    classes: Sequence[Row[Any]]
    end_ms: int
    """Recording time up to which they go."""
    has_more: bool
    """Whether more frames are waiting."""
    took_s: float
    """Duration of the reading in seconds."""


class Rollup:
    """Adds newly recorded frames. For one thread at a time."""

    def __init__(self, recorded: Engine, own: Engine) -> None:
        """Open the sums. `recorded` is the recorder's database, which is only read; `own` is the console's."""
        self.recorded = recorded
        self._own = own
        self._add = {table: _addition(own, table) for table in (camera_minutes, camera_hours)}
        insertion = upsert(own, class_hours)
        total = class_hours.c.frames + insertion.excluded.frames
        self._add_classes = PreparedStatement(
            own, insertion.on_conflict_do_update(index_elements=list(class_hours.primary_key), set_={"frames": total})
        )
        self._step_ms: float = MINUTE_MS
        self._levels: dict[str, float] = {}
        self._by_minute, self._by_class = _sums_of_frames(), _classes_of_frames()

    def note(self, levels: Mapping[str, float]) -> None:
        """Set the cameras' current evidence levels. The maximum is stored with their next frames."""
        for camera, level in levels.items():
            self._levels[camera] = max(level, self._levels.get(camera, 0.0))

    def step(self, now_ms: int | None = None) -> bool:
        """Add some more frames. Return whether more are waiting."""
        part = self.read(now_ms)
        return part is not None and self.add(part)

    def read(self, now_ms: int | None = None) -> RollupIncrement | None:
        """Return the sums of some more frames, empty if there are none; None if no time has passed since the last ones.

        Two parts must not be read without an `add` in between.
        """
        now_ms = now_ms or unix_ms()
        settled_ms = settled_at_ms(self.recorded, now_ms)
        with self._own.begin() as own:
            begin_ms = mark(own, _TO)
        if begin_ms > now_ms:  # the clock was set back: frames recorded from now on are before that position
            return RollupIncrement((), (), settled_ms, has_more=False, took_s=0.0)
        begun_s = time.monotonic()
        with self.recorded.begin() as recorded:
            oldest = select(func.min(frames.c.recorded_ms)).where(frames.c.recorded_ms >= begin_ms)
            # No frame was recorded in between: skip that time at once.
            first_ms = recorded.scalar(oldest)
            if first_ms is None or first_ms >= settled_ms:
                return (
                    RollupIncrement((), (), settled_ms, has_more=False, took_s=0.0) if settled_ms > begin_ms else None
                )
            end_ms = min(settled_ms, first_ms + round(self._step_ms))
            span = {"since": first_ms, "until": end_ms}
            minutes = [_named(row) for row in recorded.execute(self._by_minute, span)]
            classes = recorded.execute(self._by_class, span).fetchall()
        return RollupIncrement(minutes, classes, end_ms, end_ms < settled_ms, time.monotonic() - begun_s)

    def add(self, part: RollupIncrement) -> bool:
        """Add the sums that `read` has returned. Return whether more frames are waiting."""
        begun_s = time.monotonic()
        self._write(part.minutes, part.classes, part.end_ms)
        took_s = part.took_s + time.monotonic() - begun_s
        shortest, longest = _STEPS_MS
        self._step_ms = min(longest, max(shortest, self._step_ms * min(2.0, _STEP_S / max(took_s, 1e-3))))
        return part.has_more

    def _write(self, minutes: Sequence[Sums], classes: Sequence[Row[Any]], end_ms: int) -> None:
        levels = {each["camera"]: self._levels.pop(each["camera"], 0.0) for each in minutes}
        for each in minutes:
            each["evidence"] = levels[each["camera"]]
        with self._own.begin() as own:
            if minutes:
                self._add[camera_minutes].run_each(own, minutes)
                self._add[camera_hours].run_each(own, by_hour(minutes))
            if classes:
                names = ("camera", "begin_ms", "class_name", "frames")
                self._add_classes.run_all(own, names, [tuple(row) for row in classes])
            set_mark(own, _TO, end_ms)

    def purge(self, now_ms: int | None = None) -> bool:
        """Delete some expired sums. Return whether more are left to delete. No sum has expired at `now_ms` 0."""
        at_ms = unix_ms() if now_ms is None else now_ms
        kept_ms = {camera_minutes: MINUTES_KEPT_MS, camera_hours: HOURS_KEPT_MS, class_hours: HOURS_KEPT_MS}
        with self._own.begin() as own:
            taken = [_delete_some(own, table, at_ms - age_ms) for table, age_ms in kept_ms.items()]
        return max(taken) >= PURGE_ROWS


def _delete_some(own: Connection, table: Table, before_ms: int) -> int:
    key = tuple(table.primary_key)
    oldest = select(*key).where(table.c.begin_ms < before_ms).order_by(table.c.begin_ms).limit(PURGE_ROWS)
    return own.execute(delete(table).where(tuple_(*key).in_(oldest))).rowcount


def by_hour(minutes: Iterable[Sums]) -> list[Sums]:
    """Combine the sums of minutes into those of their hours."""
    found: dict[tuple[str, int], Sums] = {}
    for each in minutes:
        begin_ms = each["begin_ms"] - each["begin_ms"] % HOUR_MS
        hour = found.get((each["camera"], begin_ms))
        if hour is None:
            found[each["camera"], begin_ms] = each | {"begin_ms": begin_ms}
            continue
        for name, value in each.items():
            if name in _MOST:
                hour[name] = max(hour[name], value)
            elif name in _LEAST:
                hour[name] = min(hour[name], value)
            elif name not in ("camera", "begin_ms"):
                hour[name] += value
    return list(found.values())


def _addition(engine: Engine, table: Table) -> PreparedStatement:
    insertion = upsert(engine, table)
    is_sqlite = engine.dialect.name == "sqlite"
    most, least = (func.max, func.min) if is_sqlite else (func.greatest, func.least)
    changed: dict[str, Any] = {}
    for column in table.columns:
        new = insertion.excluded[column.name]
        if column.name in _MOST:
            changed[column.name] = most(column, new)
        elif column.name in _LEAST:
            changed[column.name] = least(column, new)
        elif not column.primary_key:
            changed[column.name] = column + new
    return PreparedStatement(
        engine, insertion.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
    )


def _counted(span_ms: int) -> Subquery:
    """Select the frames of a span with their time and the start of its minute.

    The time is the capture time, or the recording time if the capture time is implausible.
    """
    since: BindParameter[int] = bindparam("since", type_=BigInteger)
    until: BindParameter[int] = bindparam("until", type_=BigInteger)
    makes_sense = frames.c.captured_ms.between(frames.c.recorded_ms - LATEST_MS, frames.c.recorded_ms)
    at_ms = case((makes_sense, frames.c.captured_ms), else_=frames.c.recorded_ms)
    begin_ms = (at_ms - at_ms % literal(span_ms, BigInteger)).label("begin_ms")
    columns = [frames.c[name] for name in _READ]
    within = (frames.c.recorded_ms >= since, frames.c.recorded_ms < until)
    return select(*columns, at_ms.label("at_ms"), begin_ms).where(*within).subquery()


def _total(value: Any) -> Any:
    return func.coalesce(func.sum(value), 0)


def _sums_of_frames() -> Any:
    each = _counted(MINUTE_MS).c
    late_ms = each.recorded_ms - each.at_ms
    checked = each.strip == CHECKED
    return select(
        each.camera,
        each.begin_ms,
        func.count().label("frames"),
        _total(each.frame_bytes).label("frame_bytes"),
        _total(each.width * each.height * each.channels).label("raw_bytes"),
        _total(late_ms).label("late_ms"),
        func.max(late_ms).label("slowest_ms"),
        _total(case((checked, 1), else_=0)).label("checked"),
        _total(case((checked & each.flagged, 1), else_=0)).label("flagged"),
        _total(case((each.strip == SHED, 1), else_=0)).label("strip_shed"),
        _total(each.confidence).label("confidence"),
        _total(case((checked, each.entropy_bits), else_=0.0)).label("entropy_bits"),
        _total(case((checked, each.threshold_bits), else_=0.0)).label("threshold_bits"),
        func.min(case((checked, each.entropy_bits), else_=NO_ENTROPY)).label("least_entropy_bits"),
    ).group_by(each.camera, each.begin_ms)


def _classes_of_frames() -> Any:
    each = _counted(HOUR_MS).c
    counted = select(each.camera, each.begin_ms, each.class_name, func.count().label("frames"))
    return counted.group_by(each.camera, each.begin_ms, each.class_name)


def _named(row: Row[Any]) -> Sums:
    """Return a row by its columns' names; PostgreSQL returns sums as decimals."""
    floats = ("confidence", "entropy_bits", "threshold_bits", "least_entropy_bits")
    return {
        name: value if isinstance(value, str) else (float(value) if name in floats else int(value))
        for name, value in row._mapping.items()
    }


def spans(connection: Connection, table: Table, camera: str, since_ms: int, until_ms: int) -> list[Sums]:
    """Return the sums of one camera that began in that span, oldest first."""
    mine = (table.c.camera == camera, table.c.begin_ms >= since_ms, table.c.begin_ms < until_ms)
    rows = connection.execute(select(table).where(*mine).order_by(table.c.begin_ms))
    return [dict(row) for row in rows.mappings()]


def summed_to(connection: Connection) -> int:
    """Return the recording time up to which frames are summed, Unix time in milliseconds."""
    return mark(connection, _TO)


def last_sum_ms(connection: Connection, camera: str, before_ms: int) -> int | None:
    """Return the end of the camera's last minute with frames that began before `before_ms`, a full minute.

    If its minutes are purged, it is the end of its last hour, but not after `before_ms`. None without frames.
    """
    for table, length_ms in ((camera_minutes, MINUTE_MS), (camera_hours, HOUR_MS)):
        earlier = (table.c.camera == camera, table.c.begin_ms < before_ms)
        begin_ms: int | None = connection.scalar(select(func.max(table.c.begin_ms)).where(*earlier))
        if begin_ms is not None:
            return min(begin_ms + length_ms, before_ms)
    return None


def classes_of(connection: Connection, camera: str, since_ms: int, until_ms: int) -> list[tuple[str, int]]:
    """Return the predicted classes of a camera with their counts in the hours of that span, most frequent first."""
    counts: defaultdict[str, int] = defaultdict(int)
    mine = (class_hours.c.camera == camera, class_hours.c.begin_ms >= since_ms, class_hours.c.begin_ms < until_ms)
    for row in connection.execute(select(class_hours).where(*mine)):
        counts[row.class_name] += row.frames
    return sorted(counts.items(), key=lambda each: -each[1])
