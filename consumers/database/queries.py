"""Queries on recorded data next to a running recorder, for the audit and the report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Engine, Table, case, func, inspect, literal, select, tuple_

from consumers.database.archive import RowKind
from consumers.database.engine import open_engine
from consumers.database.migrations import check_version
from consumers.database.runs import all_numbers, boot_numbers
from consumers.database.tables import (
    alerts,
    archived,
    boots,
    dead_letters,
    frames,
    ledgers,
    offsets,
    summed_ledgers,
)
from consumers.database.tallies import PURGED_ALERTS, PURGED_FOREIGN, tally
from consumers.records.rows import LedgerRow, SummedRow
from schemas.batched import batched
from schemas.messages.frame import ATTACKED
from schemas.pointillist_pb2 import CHECKED, SHED
from schemas.ranges import RangeSet

Boots = Collection[tuple[str, int]]
"""Pairs of camera and boot; None selects all."""

Cameras = Collection[str]
"""At most `CAMERAS_AT_ONCE` camera names."""

CAMERAS_AT_ONCE: Final = 200
_BOOTS_AT_ONCE: Final = 400
_ROWS_AT_ONCE: Final = 100
_FOREVER_MS = 2**62

# `schemas.messages.frame.Truth` decodes the column in the same way.
_SHOWN = (frames.c.truth - 1) % ATTACKED
_STICKER = _SHOWN % 2
_UNDER_ATTACK = case((frames.c.truth > ATTACKED, 1), else_=0)
_CORRECT = case((frames.c.class_id == _SHOWN // 2, 1), else_=0)
_JUDGED = tuple(
    each * correct
    for each in ((1 - _UNDER_ATTACK) * (1 - _STICKER), (1 - _UNDER_ATTACK) * _STICKER, _UNDER_ATTACK)
    for correct in (literal(1), _CORRECT)
)
"""The columns of `Accuracy` as SQL sums."""


class Latency(NamedTuple):
    """Latency from capture to record, in seconds.

    None if no frame was measured. Frames with a capture time in the future are only counted.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    frames: int
    negative: int


class Accuracy(NamedTuple):
    """Counts of frames with a known true class.

    Attacked frames are counted separately. So are frames that show a sticker without an attack.
    """

    clean: int
    clean_correct: int
    sticker: int
    sticker_correct: int
    attacked: int
    attacked_correct: int


class ByteSums(NamedTuple):
    """Sums of bytes over recorded frames."""

    frames: int
    frame_bytes: int
    """Messages on the wire without MQTT's own header."""
    pixel_bytes: int
    raw_bytes: int
    """Width × height × channels."""


class StripTruth(NamedTuple):
    """Checked frames with a known truth and no attack, and the flagged ones among them.

    Frames with a sticker are counted separately.
    """

    clean: int
    clean_flagged: int
    sticker: int
    sticker_flagged: int


class StripCounts(NamedTuple):
    """Probes by outcome. The flagged ones are among the checked."""

    checked: int
    flagged: int
    shed: int


def open_records(url: str) -> Records:
    """Open a recorder's database at a URL for reading. Raises `StateError` if a SQLite file does not exist."""
    return Records(open_engine(url, writes=False))


class Records:
    """Read-only queries. Each method reads one snapshot. Purged rows are not included unless stated."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine used for reading."""
        return self._engine

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def check_version(self) -> int | None:
        """Return the version of the tables, None without one.

        Raises `StateError` for tables of another version, whose columns may differ.
        """
        with self._engine.begin() as connection:
            return check_version(connection)

    def boots(self, of: Cameras | None = None) -> set[tuple[str, int]]:
        """Return every boot with a known frame, verified dead letter or ledger, purged ones included.

        `of` selects cameras.
        """
        tables = (boots, ledgers, dead_letters, archived)
        with self._engine.begin() as connection:
            found: set[tuple[str, int]] = set()
            for table in tables:
                query = select(table.c.camera, table.c.boot).where(*_of_boots(table)).distinct()
                if of is not None:
                    query = query.where(table.c.camera.in_(of))
                found.update((camera, boot) for camera, boot in connection.execute(query))
            return found

    def cameras(self) -> set[str]:
        """Return the cameras of `boots`."""
        with self._engine.begin() as connection:
            found: set[str] = set()
            for table in (boots, ledgers, dead_letters, archived):
                found.update(connection.scalars(select(table.c.camera).where(*_of_boots(table)).distinct()))
            return found

    def ledgers(self, of: Cameras | None = None) -> Iterator[LedgerRow]:
        """Yield the highest revision of each boot's ledger, of the cameras `of`, in chunks."""
        rows = select(ledgers).order_by(ledgers.c.camera, ledgers.c.boot).execution_options(yield_per=_ROWS_AT_ONCE)
        with self._engine.begin() as connection:
            for row in connection.execute(rows if of is None else rows.where(ledgers.c.camera.in_(of))):
                yield LedgerRow(*row)

    def summed_ledgers(self) -> dict[str, SummedRow]:
        """Return the sums over removed ledgers, by camera."""
        with self._engine.begin() as connection:
            if not inspect(connection).has_table(summed_ledgers.name):  # the recorder makes the table at its start
                return {}
            return {row.camera: SummedRow(*row) for row in connection.execute(select(summed_ledgers))}

    def recorded(self, camera: str, boot: int) -> RangeSet:
        """Return the recorded frames of one boot, purged ones included."""
        with self._engine.begin() as connection:
            return boot_numbers(connection, RowKind.FRAME, camera, boot)

    def dead_lettered(self, camera: str, boot: int) -> RangeSet:
        """Return the verified frames of one boot that were rejected later, purged ones included."""
        with self._engine.begin() as connection:
            return boot_numbers(connection, RowKind.DEAD_LETTER, camera, boot)

    def recorded_by_boot(self, of: Cameras | None = None) -> dict[tuple[str, int], RangeSet]:
        """Return `recorded` for each boot that has any, of the cameras `of`, in one index scan."""
        return all_numbers(self._engine, RowKind.FRAME, of)

    def dead_lettered_by_boot(self, of: Cameras | None = None) -> dict[tuple[str, int], RangeSet]:
        """Return `dead_lettered` for each boot that has any, of the cameras `of`."""
        return all_numbers(self._engine, RowKind.DEAD_LETTER, of)

    def foreign_count(self) -> int:
        """Return the number of payloads without a verified identity, purged ones included."""
        query = select(func.count()).select_from(dead_letters).where(~dead_letters.c.verified)
        with self._engine.begin() as connection:
            return (connection.scalar(query) or 0) + tally(connection, PURGED_FOREIGN)

    def duplicates(self) -> int:
        """Return the number of verdicts on already recorded frames, purged frames included."""
        return sum(self.duplicates_by_boot().values())

    def duplicates_by_boot(self, of: Cameras | None = None) -> dict[tuple[str, int], int]:
        """Return `duplicates` for each boot that has any, of the cameras `of`."""
        query = select(boots.c.camera, boots.c.boot, boots.c.duplicates).where(boots.c.duplicates > 0)
        if of is not None:
            query = query.where(boots.c.camera.in_(of))
        with self._engine.begin() as connection:
            return {(camera, boot): count for camera, boot, count in connection.execute(query)}

    def offsets(self) -> dict[tuple[str, int], int]:
        """Return the next offset to read, by Kafka topic and partition."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(offsets.c.topic, offsets.c.partition, offsets.c.next))
            return {(topic, partition): following for topic, partition, following in rows}

    def span_s(self, of: Boots | None = None) -> float:
        """Return the seconds from the first capture to the last record; 0 without frames."""
        query = select(func.min(frames.c.captured_ms), func.max(frames.c.recorded_ms))
        with self._engine.begin() as connection:
            spans = [
                connection.execute(query.where(where)).one() for where in _among((frames.c.camera, frames.c.boot), of)
            ]
        found = [(first, last) for first, last in spans if first is not None]
        return (max(last for _, last in found) - min(first for first, _ in found)) / 1000 if found else 0.0

    def alert_count(self, since_ms: int = 0) -> int:
        """Return the number of backdoor alerts raised; with `since_ms` 0 purged ones included."""
        with self._engine.begin() as connection:
            raised = (alerts.c.wanted == "", alerts.c.raised_ms >= since_ms)
            found = connection.scalar(select(func.count()).where(*raised)) or 0
            return found + (tally(connection, PURGED_ALERTS) if since_ms <= 0 else 0)

    def latency_quantiles(self, since_ms: int = 0, until_ms: int = _FOREVER_MS, of: Boots | None = None) -> Latency:
        """Return the latency of frames captured from `since_ms` to before `until_ms`."""
        latency = (frames.c.recorded_ms - frames.c.captured_ms).label("latency_ms")
        counts: dict[int, int] = {}
        with self._engine.begin() as connection:
            query = select(latency, func.count()).where(*_captured(since_ms, until_ms)).group_by(latency)
            for where in _among((frames.c.camera, frames.c.boot), of):
                for value, count in connection.execute(query.where(where)):
                    counts[value] = counts.get(value, 0) + count
        measured = sorted((value, count) for value, count in counts.items() if value >= 0)
        total = sum(count for _, count in measured)
        p50, p95, p99 = (_quantile(measured, total, q) for q in (0.5, 0.95, 0.99))
        return Latency(p50, p95, p99, total, sum(counts.values()) - total)

    def accuracy(self, since_ms: int = 0, until_ms: int = _FOREVER_MS, of: Boots | None = None) -> Accuracy:
        """Return the accuracy over frames captured from `since_ms` to before `until_ms` with a known truth."""
        return Accuracy(*self._sums(_JUDGED, of, *_captured(since_ms, until_ms), frames.c.truth > 0))

    def accuracy_under_attack(self, of: Boots | None = None) -> dict[str, Accuracy]:
        """Return the accuracy on attacked frames with a known truth, by camera name."""
        totals: dict[str, Accuracy] = {}
        columns = (func.coalesce(func.sum(value), 0) for value in _JUDGED)
        query = select(frames.c.camera, *columns).group_by(frames.c.camera).order_by(frames.c.camera)
        with self._engine.begin() as connection:
            for where in _among((frames.c.camera, frames.c.boot), of):
                for camera, *sums in connection.execute(query.where(frames.c.truth > 0, where)):
                    before = totals.get(camera, Accuracy(0, 0, 0, 0, 0, 0))
                    totals[camera] = Accuracy(*(int(a) + int(b) for a, b in zip(before, sums, strict=True)))
        return {camera: found for camera, found in sorted(totals.items()) if found.attacked}

    def byte_sums(self, of: Boots | None = None) -> ByteSums:
        """Return the byte sums over all frames."""
        raw = frames.c.width * frames.c.height * frames.c.channels
        sums = (literal(1), frames.c.frame_bytes, frames.c.pixel_bytes, raw)
        return ByteSums(*self._sums(sums, of))

    def strip_counts(self, of: Boots | None = None) -> StripCounts:
        """Return the probe counts over all frames."""
        checked = case((frames.c.strip == CHECKED, 1), else_=0)
        flagged = case((frames.c.flagged & (frames.c.strip == CHECKED), 1), else_=0)
        shed = case((frames.c.strip == SHED, 1), else_=0)
        return StripCounts(*self._sums((checked, flagged, shed), of))

    def strip_truth(self, of: Boots | None = None) -> StripTruth:
        """Return the counts over checked frames with a known truth."""
        flagged = case((frames.c.flagged, 1), else_=0)
        sums = (1 - _STICKER, (1 - _STICKER) * flagged, _STICKER, _STICKER * flagged)
        known = (frames.c.truth > 0, frames.c.truth < ATTACKED, frames.c.strip == CHECKED)
        return StripTruth(*self._sums(sums, of, *known))

    def alerts_by_camera(self, since_ms: int = 0) -> dict[str, int]:
        """Return the backdoor alerts raised since then by camera, as far as the bounded database still holds them."""
        raised = (alerts.c.wanted == "", alerts.c.raised_ms >= since_ms)
        query = select(alerts.c.camera, func.count()).where(*raised).group_by(alerts.c.camera)
        with self._engine.begin() as connection:
            return {camera: int(count) for camera, count in connection.execute(query.order_by(alerts.c.camera))}

    def _sums(
        self, values: Sequence[ColumnElement[int]], of: Boots | None, *conditions: ColumnElement[bool]
    ) -> list[int]:
        query = select(*(func.coalesce(func.sum(value), 0) for value in values)).select_from(frames)
        totals = [0] * len(values)
        with self._engine.begin() as connection:
            for where in _among((frames.c.camera, frames.c.boot), of):
                row = connection.execute(query.where(where, *conditions)).one()
                totals = [total + int(value) for total, value in zip(totals, row, strict=True)]
        return totals


def _of_boots(table: Table) -> Iterator[ColumnElement[bool]]:
    """Yield the condition that `Records.boots` includes a row: only verified dead letters, and no summed ledgers."""
    if table is dead_letters:
        yield dead_letters.c.verified
    elif table is archived:
        yield archived.c.kind != RowKind.LEDGER.value


def _captured(since_ms: int, until_ms: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return frames.c.captured_ms >= since_ms, frames.c.captured_ms < until_ms


def _among(key: tuple[ColumnElement[str], ColumnElement[int]], of: Boots | None) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together select the boots `of`, each with a bounded number of parameters."""
    if of is None:
        yield literal(value=True)
        return
    for some in batched(sorted(set(of)), _BOOTS_AT_ONCE):
        yield tuple_(*key).in_(some)


def _quantile(measured: Sequence[tuple[int, int]], total: int, q: float) -> float | None:
    """Return the `q` quantile in seconds of (milliseconds, count) pairs with `total` counts."""
    seen = 0
    for value, count in measured:
        seen += count
        if seen >= q * total:
            return value / 1000
    return None
