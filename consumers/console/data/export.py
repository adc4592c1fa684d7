"""Verdict export as CSV or Parquet, streamed in short reads that do not block writers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, Row, func, select

from consumers.console.access.sight import ALL, Sight
from consumers.console.long_answers import ResponseSlots
from consumers.database.tables import frames
from consumers.records.rows import statistic_name
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import CHECKED, SHED

LONGEST_MS: Final = 31 * 86_400_000
LONGEST_S: Final = 600.0
"""Maximum duration of one export, reading included, in seconds."""
MOST_EXPORTS: Final = 8
MOST_OF_USER: Final = 2
"""Exports of one user at once. Without logins only `MOST_EXPORTS` applies."""
_SPAN_MS: Final = 60_000
_PART_ROWS: Final = 10_000
"""Verdicts of one part, about 20 MB: after an outage, recorders record millions in a minute. Those of one millisecond
stay together."""
_WINDOW_MS: Final = 3_600_000
"""Time in which one query looks for the next frame of some cameras: others may have recorded millions in between."""
_STRIP: Final = {CHECKED: "checked", SHED: "shed"}

COLUMNS: Final = {
    "camera": pa.string(),
    "boot": pa.string(),
    "seq": pa.int64(),
    "captured_ms": pa.int64(),
    "processed_ms": pa.int64(),
    "recorded_ms": pa.int64(),
    "class_id": pa.int64(),
    "class_name": pa.string(),
    "confidence": pa.float64(),
    "model_id": pa.string(),
    "policy": pa.string(),
    "true_class": pa.int64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "channels": pa.int64(),
    "dropped_per_block": pa.int64(),
    "whole": pa.bool_(),
    "frame_bytes": pa.int64(),
    "pixel_bytes": pa.int64(),
    "strip": pa.string(),
    "entropy_bits": pa.float64(),
    "threshold_bits": pa.float64(),
    "flagged": pa.bool_(),
    "class_group": pa.string(),
    "best": pa.string(),
    "p_value": pa.float64(),
    "p_value_threshold": pa.float64(),
    "statistic": pa.string(),
    "certified_patch": pa.int64(),
    "certified": pa.bool_(),
}
"""Columns of both formats.

`true_class` is empty unless the source was simulated; entropy and threshold are empty unless STRIP checked the frame.
The p-value, its threshold and `statistic`, the name of the most unusual one, are empty if the bundle has no p-values.
`certified` is empty unless the label was examined.
"""


def export_places(*, logs_in: bool) -> ResponseSlots:
    """Return the limits on all exports of a console."""
    most_of_user = MOST_OF_USER if logs_in else MOST_EXPORTS
    return ResponseSlots("exports", most=MOST_EXPORTS, most_of_user=most_of_user, patience_s=LONGEST_S)


def rows(
    engine: Engine, since_ms: int, until_ms: int, sight: Sight, camera: str | None = None
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the verdicts recorded in that time at these sites in chunks, in recording order.

    A chunk is empty if a window has no verdicts: the response can end there.
    """
    mine = (sight.where(frames.c.camera), *(() if camera is None else (frames.c.camera == camera,)))
    order = (frames.c.recorded_ms, frames.c.camera, frames.c.boot, frames.c.seq)
    window_ms = LONGEST_MS if sight == ALL and camera is None else _WINDOW_MS
    at_ms = since_ms
    while at_ms < until_ms:
        end_ms = min(until_ms, at_ms + window_ms)
        found: Sequence[Row[Any]] = ()
        with engine.begin() as connection:
            when = (frames.c.recorded_ms >= at_ms, frames.c.recorded_ms < end_ms)
            first_ms = connection.scalar(select(func.min(frames.c.recorded_ms)).where(*when, *mine))
            if first_ms is None:
                at_ms = end_ms
            else:
                at_ms = min(until_ms, first_ms + _SPAN_MS)
                part = (frames.c.recorded_ms >= first_ms, frames.c.recorded_ms < at_ms, *mine)
                times = select(frames.c.recorded_ms).where(*part).order_by(frames.c.recorded_ms)
                last_ms = connection.scalar(times.offset(_PART_ROWS - 1).limit(1))
                if last_ms is not None:
                    at_ms = last_ms + 1
                some = select(frames).where(*part, frames.c.recorded_ms < at_ms)
                found = connection.execute(some.order_by(*order)).fetchall()
        yield [_values(row) for row in found]


def _values(row: Any) -> tuple[Any, ...]:
    truth = Truth.from_wire(row.truth)
    checked = row.strip == CHECKED
    values = dict(row._mapping) | {
        "boot": f"{row.boot:016x}",
        "true_class": truth.class_id if truth is not None else None,
        "strip": _STRIP.get(row.strip, ""),
        "entropy_bits": row.entropy_bits if checked else None,
        "threshold_bits": row.threshold_bits if checked else None,
        "p_value": row.p_value if checked and row.p_value_threshold else None,
        "p_value_threshold": row.p_value_threshold or None,
        "statistic": statistic_name(row.statistic) or None,
        "certified_patch": row.certified_patch or None,
        "certified": row.certified if row.certified_patch else None,
    }
    return tuple(values[name] for name in COLUMNS)


def as_csv(parts: Iterator[list[tuple[Any, ...]]]) -> Iterator[bytes]:
    """Yield CSV with a header line. An apostrophe precedes cells that a spreadsheet would run as a formula."""
    yield _lines([tuple(COLUMNS)])
    for part in parts:
        yield _lines([tuple(_harmless(value) for value in row) for row in part])


def _lines(some: Sequence[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(some)
    return text.getvalue().encode()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


class _Sink(io.RawIOBase):
    """A write buffer that `drain` empties."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Append `data` to the buffer."""
        kept = bytes(data)
        self._held.append(kept)
        return len(kept)

    def drain(self) -> bytes:
        """Return and clear the buffer."""
        data, self._held = b"".join(self._held), []
        return data


def as_parquet(parts: Iterator[list[tuple[Any, ...]]]) -> Iterator[bytes]:
    """Yield Parquet with one row group for each part that is not empty."""
    schema = pa.schema(list(COLUMNS.items()))
    sink = _Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for part in parts:
            if part:
                by_column = zip(*part, strict=True)
                arrays = [pa.array(column, kind) for column, kind in zip(by_column, COLUMNS.values(), strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.drain()
    yield sink.drain()
