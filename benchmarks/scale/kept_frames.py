"""Recording with a day's history: `python -m benchmarks.scale.kept_frames --out docs/results/recorders [--hours 24]`.

Two PostgreSQL databases are compared: an empty one, and one with `--hours` hours of 1,000 frames a second of 1,000
cameras. They are measured in turn, at the rate at which frames arrive. The first figure is the transaction that records
the next second of all cameras. It is measured again while the oldest hours are dropped one by one, and while the oldest
rows of a single partition are deleted. The last figure is a query for one camera's last hour. The server runs without
`fsync`: a disk's write latency comes on top.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import psutil
from sqlalchemy import func, select, text, update

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.postgresql import PostgreSQL, passing_folder
from benchmarks.harness.quantile import quantile
from benchmarks.harness.recorder_store import MadeRecord, frame_values, open_store, settings_in
from benchmarks.harness.services import started
from benchmarks.scale.recorder import SECRET, verdicts
from consumers.database.queries import Records
from consumers.database.spans import HOUR_MS, ensure_span, partition, spans_held
from consumers.database.tables import evidence, frames, spans
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS, tally
from consumers.recorder.purge import purge
from consumers.records.batch import Partition, read
from consumers.records.rows import frame_bytes
from consumers.settings import Bounds
from schemas.clock import unix_ms
from schemas.keys.keys import KeyRing
from schemas.messages.server_messages import sign_statement
from schemas.runtime.atomic_file import write_text

CAMERAS: Final = 1_000
BOOT: Final = 7
_PORTION: Final = 600
"""Seconds of history that one statement fills."""
_BLOBS: Final = ("waiting", "track")
_FRAME_BYTES: Final = frame_bytes("postgresql", "local/cam-000", "", "", "")
_KEEP_ALL: Final = Bounds(database_bytes=2**62, database_age_s=10 * 365 * 86_400.0)
_MOST_REFUSED: Final = 600


class Took(NamedTuple):
    """Seconds that 1,000 verdicts take."""

    transaction: float
    reading: float
    """Seconds of reading before it; signatures are checked."""
    cpu: float
    """CPU seconds of both, in the recorder."""


class Kept:
    """A recorder's store with some seconds of history, one frame of each camera a second."""

    def __init__(self, url: str, seconds: int, folder: Path) -> None:
        self.frames = seconds * CAMERAS
        self.settings = settings_in(folder, url)
        self.keys = KeyRing(SECRET)
        self.store = open_store(self.settings, self.keys)
        self.engine = self.store.engine
        self.seq = seconds
        now_ms = unix_ms()
        self.first_ms = now_ms - now_ms % HOUR_MS - seconds * 1_000
        """The offset makes the filled hours whole, and leaves space in the present one."""
        began = time.perf_counter()
        for start in range(0, seconds, _PORTION):
            self._fill(start, min(_PORTION, seconds - start))
        self.filled_s = time.perf_counter() - began
        if seconds:
            self._know()
        self._offsets: dict[Partition, int] = {}
        with self.engine.begin() as connection:
            self._backend = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()")))

    def server_cpu(self) -> float:
        """Return the CPU seconds that the server process of this recorder has used."""
        times = self._backend.cpu_times()
        return float(times.user + times.system)

    def _fill(self, first: int, count: int) -> None:
        begin_ms = self.first_ms + 1_000 * first
        fixed = {
            "camera": "'local/cam-' || n",
            "boot": f"{BOOT} + n",
            "seq": f"{first} + s",
            "recorded_ms": f"{begin_ms} + 1000 * s",
        }
        source = f"generate_series(0, {count - 1}) s, generate_series(0, {CAMERAS - 1}) n"
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            span = ensure_span(connection, begin_ms)
            connection.execute(
                text(f"INSERT INTO {partition(span.from_ms)} SELECT {frame_values(fixed)} FROM {source}")
            )
            rows = count * CAMERAS
            more = {"frames": spans.c.frames + rows, "bytes": spans.c.bytes + rows * _FRAME_BYTES}
            connection.execute(update(spans).where(spans.c.from_ms == span.from_ms).values(more))
            self.store.tallies.add(connection, {FRAME_ROWS: rows, FRAME_BYTES: rows * _FRAME_BYTES})

    def _know(self) -> None:
        """Write the recorder's other data about those frames: counts, identities, processed evidence."""
        known = {"camera": "'local/cam-' || n", "boot": f"{BOOT} + n", "following": str(self.seq)}
        values = ", ".join(known.get(each.name) or ("''" if each.name in _BLOBS else "0") for each in evidence.c)
        camera, source = f"'local/cam-' || n, {BOOT} + n", f"FROM generate_series(0, {CAMERAS - 1}) n"
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO evidence SELECT {values} {source}"))
            connection.execute(text(f"INSERT INTO boots SELECT {camera}, {self.seq}, 0, 0 {source}"))
            connection.execute(text(f"INSERT INTO archived SELECT 'frame', {camera}, 0, {self.seq - 1} {source}"))
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("ANALYZE"))

    def record(self) -> Took:
        """Record the next frame of every camera."""
        topic = self.settings.verdicts_topic
        start = self._offsets.get((topic, 0), 0)
        made = [
            MadeRecord(topic, 0, start + n, camera.encode(), sign_statement(self.keys, camera, verdict), [])
            for n, (camera, verdict) in enumerate(verdicts(CAMERAS, CAMERAS, BOOT, self.seq))
        ]
        began, used = time.perf_counter(), time.process_time()
        batch = read(made, self.settings, self.keys, unix_ms())
        begun = time.perf_counter()
        written = self.store.write(batch, {place: self._offsets.get(place) for place in batch.offsets})
        ended = time.perf_counter()
        assert len(written.rows) == CAMERAS, (len(written.rows), self.seq)
        self._offsets |= {place: following for place, (_, following) in batch.offsets.items()}
        self.seq += 1
        return Took(ended - begun, begun - began, time.process_time() - used)

    def hours(self) -> int:
        """Return the number of partitions of whole past hours."""
        with self.engine.begin() as connection:
            return len(spans_held(connection)) - 1

    def drop_hour(self) -> tuple[int, float, int]:
        """Drop the oldest hour. Return its frames, seconds of the successful step, and failed steps before it.

        PostgreSQL may be vacuuming the partition, as it does after many inserts. A step waits at most a tenth of a
        second for it.
        """
        with self.engine.begin() as connection:
            oldest = spans_held(connection)[0]
        age_s = time.time() - oldest.to_ms / 1000 - 0.1
        bounds = _KEEP_ALL.model_copy(update={"database_age_s": age_s})
        for refused in range(_MOST_REFUSED):
            began = time.perf_counter()
            if purge(self.store, bounds):
                return oldest.frames, time.perf_counter() - began, refused
            time.sleep(0.1)
        raise SystemExit(f"oldest hour: expected it dropped within {_MOST_REFUSED} steps, got none that succeeded")

    def purge_rows(self) -> tuple[int, float]:
        """Run one purge step on the rows of the only partition. Return the number of deleted rows, and seconds."""
        before = self._held()
        began = time.perf_counter()
        purge(self.store, _KEEP_ALL.model_copy(update={"database_rows": 1}))
        return before - self._held(), time.perf_counter() - began

    def _held(self) -> int:
        with self.engine.begin() as connection:
            return tally(connection, FRAME_ROWS)

    def last_hour(self, camera: int) -> float:
        """Return the seconds of a query for one camera's last hour in the database."""
        until_ms = self.first_ms + self.frames // CAMERAS * 1_000
        mine = (frames.c.camera == f"local/cam-{camera}", frames.c.recorded_ms >= until_ms - HOUR_MS)
        query = select(func.count(), func.avg(frames.c.confidence), func.max(frames.c.entropy_bits)).where(*mine)
        began = time.perf_counter()
        with self.engine.begin() as connection:
            count = connection.execute(query).one()[0]
        took = time.perf_counter() - began
        assert count >= min(3_600, self.frames // CAMERAS), count
        return took

    def whole_audit(self) -> float:
        """Return the seconds for reading every recorded identity."""
        began = time.perf_counter()
        found = Records(self.engine).recorded_by_boot()
        took = time.perf_counter() - began
        assert sum(map(len, found.values())) == self.seq * CAMERAS
        return took


def _ms(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(1000 * (quantile(seconds, q) or 0.0), 1) for name, q in (("median", 0.5), ("p99", 0.99))}


def measure(empty: Kept, full: Kept, rounds: int) -> dict[str, Any]:
    """Measure everything, the two databases in turn."""
    for kept in (empty, full):
        for _ in range(10):
            kept.record()
    before = [kept.server_cpu() for kept in (empty, full)]
    pairs = [(empty.record(), full.record()) for _ in range(rounds)]
    server = [kept.server_cpu() - used for kept, used in zip((empty, full), before, strict=True)]
    queries = [full.last_hour(camera) for camera in range(0, CAMERAS, CAMERAS // 20)]
    audit_s = full.whole_audit()
    during, dropped = [], []
    while full.hours():
        dropped.append(full.drop_hour())
        during += [full.record().transaction for _ in range(4)]
    loaded, purged = [], []
    for _ in range(rounds // 3):
        loaded.append(empty.record().transaction)
        # Three times the rate of arrival.
        purged += [empty.purge_rows() for _ in range(6)]
    each = dict(zip(("empty", "full"), zip(*pairs, strict=True), strict=True))
    return {
        "machine_cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "frames": full.frames,
        "partitions": len(dropped) + 1,
        "fill_s": round(full.filled_s),
        "transaction_ms": {name: _ms([one.transaction for one in found]) for name, found in each.items()},
        "reading_ms": {name: _ms([one.reading for one in found]) for name, found in each.items()},
        "recorder_cpu_ms": {name: _ms([one.cpu for one in found]) for name, found in each.items()},
        "server_cpu_ms": {name: round(1000 * used / rounds, 1) for name, used in zip(each, server, strict=True)},
        "verdicts_per_s": {
            name: round(CAMERAS / median([one.transaction + one.reading for one in found]))
            for name, found in each.items()
        },
        "verdicts_per_s_of_cpu": {
            "recorder": {name: round(CAMERAS / median([one.cpu for one in found])) for name, found in each.items()},
            "server": {name: round(CAMERAS * rounds / used) for name, used in zip(each, server, strict=True)},
        },
        "transaction_ms_while_hours_go": _ms(during),
        "drop_ms": _ms([took for _, took, _ in dropped]),
        "steps_that_could_not_drop": sum(refused for _, _, refused in dropped),
        "dropped_rows_per_s": round(sum(rows for rows, _, _ in dropped) / sum(took for _, took, _ in dropped)),
        "transaction_ms_while_rows_go": _ms(loaded),
        "purged_rows_per_s": round(sum(rows for rows, _ in purged) / sum(took for _, took in purged)),
        "last_hour_of_a_camera_ms": _ms(queries),
        "identities_of_all_s": round(audit_s, 2),
    }


def table(found: dict[str, Any]) -> list[str]:
    """Return the results as a Markdown table."""

    def ms(name: str) -> str:
        return " | ".join(f"{found[name][side]['median']} / {found[name][side]['p99']}" for side in ("empty", "full"))

    def one(name: str) -> str:
        return f"{found[name]['median']} / {found[name]['p99']}"

    per_s, cpu = found["verdicts_per_s"], found["server_cpu_ms"]
    of_cpu = found["verdicts_per_s_of_cpu"]
    return [
        f"| median / p99 in ms | empty | {found['frames']:,} frames |",
        "| --- | --- | --- |",
        f"| transaction of {CAMERAS:,} verdicts | {ms('transaction_ms')} |",
        f"| before it, reading them and checking their signatures | {ms('reading_ms')} |",
        f"| CPU time of the recorder for both | {ms('recorder_cpu_ms')} |",
        f"| CPU time of the server for it, mean | {cpu['empty']} | {cpu['full']} |",
        *(
            f"| verdicts for a second of the {role}'s CPU | {of_cpu[role]['empty']:,} | {of_cpu[role]['full']:,} |"
            for role in ("recorder", "server")
        ),
        f"| verdicts a second, by the medians | {per_s['empty']:,} | {per_s['full']:,} |",
        f"| transaction after an hour of 3,600,000 frames went | | {one('transaction_ms_while_hours_go')} |",
        f"| purging step that drops such an hour | | {one('drop_ms')} |",
        f"| steps that could not, for PostgreSQL was at work there | | {found['steps_that_could_not_drop']} |",
        f"| frames a second that go so | | {found['dropped_rows_per_s']:,} |",
        f"| transaction while rows of the only partition go, three for each that comes | "
        f"{one('transaction_ms_while_rows_go')} | |",
        f"| rows a second that go so | {found['purged_rows_per_s']:,} | |",
        f"| query for a camera's last hour, 3,600 frames | | {one('last_hour_of_a_camera_ms')} |",
        f"| all recorded identities, for an audit, s | | {found['identities_of_all_s']} |",
    ]


def page(found: dict[str, Any]) -> list[str]:
    """Return the page of the results as Markdown."""
    hours, rounds = found["hours"], found["rounds"]
    return [
        f"# Recording into a database of {hours:g} hours of 1,000 frames a second",
        "",
        f"`{found['command']}`: PostgreSQL {found['postgresql']} as it comes but without `fsync`, {CAMERAS:,} cameras "
        f"that send a frame a second, an hour a partition; {rounds} transactions of {CAMERAS:,} verdicts on this "
        "database and on an empty one, in turn.",
        "",
        f"With other processes running: {found['load']:g} runnable processes on {found['machine_cores']} cores. "
        "Times of the clock are upper bounds, then, and so are those of the CPU, if less.",
        "",
        *table(found),
    ]


def main() -> None:
    """Fill, measure, and write the results."""
    options = command_line(__doc__, out=Option(Path, required=True), hours=24.0, rounds=300)
    with passing_folder() as folder, started(PostgreSQL(folder)) as server:
        seconds = round(options.hours * 3_600)
        full = Kept(server.create("full"), seconds, folder)
        empty = Kept(server.create("empty"), 0, folder)
        found = measure(empty, full, options.rounds)
        found["postgresql"] = (full.engine.dialect.server_version_info or ("?",))[0]
        for kept in (empty, full):
            kept.engine.dispose()
    found |= {"command": options.command, "hours": options.hours, "rounds": options.rounds}
    lines = page(found)
    report(found, options.out / "kept.json", shown=False)
    write_text(options.out / "README.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
