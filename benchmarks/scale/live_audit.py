"""The cost of the live audit by the size of the history: `python -m benchmarks.scale.live_audit --out
docs/results/audit`.

One PostgreSQL database has `--boots` boots of 50 frames each, another one a tenth of them. The figures are the seconds
of the first reading and of later readings, each after 2,000 more frames of 500 boots. A later reading is the cost of an
open page.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import insert, text

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.postgresql import PostgreSQL, passing_folder
from benchmarks.harness.recorder_store import frame_values, open_store, settings_in
from benchmarks.harness.services import started
from benchmarks.scale.recorder import SECRET
from consumers.conservation.live import LiveAudit
from consumers.conservation.rounds import LogOffsets
from consumers.database.spans import ensure_span
from consumers.database.tables import archived, boots, ledgers
from consumers.records.batch import ledger_row
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger
from schemas.runtime.atomic_file import write_text

EACH: Final = 50
CHANGED: Final = 500
"""Boots with new frames between two readings."""
NEW: Final = 4
"""New frames of each of them."""
_KEYS: Final = KeyRing(SECRET)


class System:
    """A database of some size and its live audit."""

    def __init__(self, url: str, count: int, folder: Path) -> None:
        self.count = count
        self.engine = open_store(settings_in(folder, url), _KEYS).engine
        self._following = EACH
        old_ms = 1_000
        for start in range(0, count, CHANGED):
            self._record(range(start, min(start + CHANGED, count)), 0, EACH, old_ms)
        with self.engine.begin() as connection:
            connection.execute(insert(ledgers), list(self._ledgers(old_ms)))
        with self.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
        self.live = LiveAudit(url, _KEYS)
        self.first_s = self.refreshed()

    def _ledgers(self, taken_ms: int) -> Iterator[dict[str, object]]:
        for number in range(self.count):
            camera = CameraId(f"local/cam-{number}")
            ledger = Ledger(boot_id=1, revision=1, next=EACH, confirmed_to=EACH, started_ms=1, closed=True)
            yield ledger_row((camera, 1), ledger, sign_message(_KEYS.current(camera), ledger), taken_ms)._asdict()

    def _record(self, cameras: range, first: int, count: int, at_ms: int) -> None:
        fixed = {"camera": "'local/cam-' || n", "boot": "1", "seq": f"{first} + s", "recorded_ms": str(at_ms)}
        numbers = f"generate_series({cameras.start}, {cameras.stop - 1}) n"
        statements = (
            f"INSERT INTO frames SELECT {frame_values(fixed)} FROM {numbers}, generate_series(0, {count - 1}) s",
            f"INSERT INTO {archived.name} SELECT 'frame', 'local/cam-' || n, 1, 0, {first + count - 1} FROM {numbers} "
            "ON CONFLICT (kind, camera, boot, first) DO UPDATE SET last = excluded.last",
            f"INSERT INTO {boots.name} SELECT 'local/cam-' || n, 1, {count}, 0, {at_ms} FROM {numbers} "
            f"ON CONFLICT (camera, boot) DO UPDATE SET frames = boots.frames + {count}",
        )
        with self.engine.begin() as connection:
            ensure_span(connection, at_ms)
            for statement in statements:
                connection.execute(text(statement))

    def refreshed(self) -> float:
        """Return the seconds of a reading."""
        began = time.perf_counter()
        document = self.live.refresh(LogOffsets({}, {}, {}))
        took = time.perf_counter() - began
        expected = self.count * EACH + (self._following - EACH) * CHANGED
        assert document["frames_recorded"] == expected, (document, expected)
        return took

    def go_on(self) -> float:
        """Record a few more frames. Return the seconds of the next reading."""
        self._record(range(CHANGED), self._following, NEW, unix_ms())
        self._following += NEW
        return self.refreshed()

    def close(self) -> None:
        """Close the database."""
        self.live.close()
        self.engine.dispose()


def main() -> None:
    """Fill both, read them in turn, and write the results."""
    options = command_line(__doc__, out=Option(Path, required=True), boots=20000, rounds=7)
    with passing_folder() as folder, started(PostgreSQL(folder)) as server, ExitStack() as stack:
        counts = (options.boots // 10, options.boots)
        systems = [
            stack.enter_context(closing(System(server.create(f"boots_{count}"), count, folder))) for count in counts
        ]
        rounds = [[system.go_on() for system in systems] for _ in range(options.rounds)]
    small, large = zip(*rounds, strict=True)
    document = {
        "boots": [system.count for system in systems],
        "frames": [system.count * EACH for system in systems],
        "first_s": [round(system.first_s, 2) for system in systems],
        "again_s": [[round(each, 3) for each in found] for found in (small, large)],
        "again_ratio": round(median(large) / median(small), 2),
    }
    lines = [
        "# The live audit",
        "",
        f"`{options.command}`: on PostgreSQL, "
        f"with other processes running; each later reading after {CHANGED * NEW} more frames of {CHANGED} boots, "
        "medians in turn.",
        "",
        "| boots | frames | first reading, s | later ones, s |",
        "| --- | --- | --- | --- |",
        *(
            f"| {system.count:,} | {system.count * EACH:,} | {system.first_s:.1f} | {median(found):.2f} |"
            for system, found in zip(systems, (small, large), strict=True)
        ),
        "",
        f"With ten times the history a later reading takes {document['again_ratio']} times as long.",
    ]
    report(document, options.out / "live.json", shown=False)
    write_text(options.out / "LIVE.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
