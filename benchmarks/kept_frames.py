"""Recording beside much history: `python -m benchmarks.kept_frames --out docs/results/recorders [--frames 1000000]`.

On PostgreSQL, a database with `--frames` frames of 1,000 cameras, at 1,000 frames a second, and one with a hundredth of
them: in turn, the transaction that records the next second of all cameras, and the step that purges the oldest frames.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import text

from benchmarks.recorder import SECRET, MadeRecord, verdicts
from consumers.database.engine import open_engine
from consumers.database.tables import evidence, frames
from consumers.database.tallies import FRAME_BYTES, FRAME_ROWS
from consumers.evidence.quarantine import Quarantine
from consumers.purge import purge
from consumers.reading.batch import Partition, read
from consumers.reading.rows import frame_bytes
from consumers.settings import Bounds, RecorderSettings
from consumers.store import Store
from infra.local.postgresql import PostgreSQL, passing_folder
from schemas.keys import KeyRing
from schemas.runtime.atomic_file import replacing
from schemas.statements import sign_statement

CAMERAS: Final = 1_000
BOOT: Final = 7
_PORTION: Final = 100_000
_TEXTS: Final = ("camera", "class_name", "model_id", "policy")
_BLOBS: Final = ("waiting", "whole", "dropped")
_STEPS: Final = 4
"""Purging steps for each second recorded: more rows than were recorded."""


class Kept:
    """A recorder's store with so many frames in it, one of each camera a second."""

    def __init__(self, url: str, count: int, folder: Path) -> None:
        self.count = count
        self.settings = RecorderSettings(kafka="127.0.0.1:1", database=url, quarantine=str(folder / "quarantine"))
        self.engine = open_engine(url, writes=True)
        self.store = Store(self.engine, Quarantine(self.settings.quarantine, self.engine), self.settings)
        self.store.prepare()
        self.seq = count // CAMERAS
        self._first_ms = time.time_ns() // 10**6 - 10**9
        for start in range(0, self.seq, _PORTION // CAMERAS):
            self._fill(start, min(_PORTION // CAMERAS, self.seq - start))
        with self.engine.begin() as connection:
            size = frame_bytes("postgresql", "local/cam-000", "", "", "")
            self.store.tallies.add(connection, {FRAME_ROWS: count, FRAME_BYTES: count * size})
            # The evidence of what is there has been read.
            known = {"camera": "'local/cam-' || n", "boot": f"{BOOT} + n", "following": str(self.seq)}
            values = ", ".join(known.get(each.name) or ("''" if each.name in _BLOBS else "0") for each in evidence.c)
            connection.execute(text(f"INSERT INTO evidence SELECT {values} FROM generate_series(0, {CAMERAS - 1}) n"))
        with self.engine.begin() as connection:
            connection.execute(text("ANALYZE"))
        self._offsets: dict[Partition, int] = {}

    def _fill(self, first: int, count: int) -> None:
        fixed = {
            "camera": "'local/cam-' || n",
            "boot": f"{BOOT} + n",
            "seq": f"{first} + s",
            "recorded_ms": f"{self._first_ms + 1_000 * first} + 1000 * s",
        }
        values = ", ".join(
            fixed.get(column.name)
            or ("''" if column.name in _TEXTS else "false" if column.type.python_type is bool else "0")
            for column in frames.columns
        )
        span = f"generate_series(0, {count - 1}) s, generate_series(0, {CAMERAS - 1}) n"
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO frames SELECT {values} FROM {span}"))

    def record(self) -> float:
        """The next frame of every camera; seconds of the transaction."""
        topic, keys = self.settings.verdicts_topic, KeyRing(SECRET)
        start = self._offsets.get((topic, 0), 0)
        made = [
            MadeRecord(topic, 0, start + n, camera.encode(), sign_statement(keys, camera, verdict), [])
            for n, (camera, verdict) in enumerate(verdicts(CAMERAS, CAMERAS, BOOT, self.seq))
        ]
        batch = read(made, self.settings, keys, time.time_ns() // 10**6)
        began = time.perf_counter()
        written = self.store.write(batch, {place: self._offsets.get(place) for place in batch.offsets})
        took = time.perf_counter() - began
        assert len(written.rows) == CAMERAS, (len(written.rows), self.seq)
        self._offsets |= {place: following for place, (_, following) in batch.offsets.items()}
        self.seq += 1
        return took

    def purge(self) -> float:
        """The steps that follow; seconds of each."""
        age_s = time.time() - self._first_ms / 1000 - 600
        began = time.perf_counter()
        for _ in range(_STEPS):
            purge(self.store, Bounds(database_age_s=age_s))
        return (time.perf_counter() - began) / _STEPS


def main() -> None:
    """Fill both, record and purge in turn, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with passing_folder() as folder:
        server = PostgreSQL(folder)
        try:
            server.start()
            counts = (options.frames // 100, options.frames)
            both = [Kept(server.create(f"kept_{count}"), count, folder) for count in counts]
            rounds = [[(kept.record(), kept.purge()) for kept in both] for _ in range(options.rounds)]
            for kept in both:
                kept.engine.dispose()
        finally:
            server.stop()
    found = [
        {
            "frames": kept.count,
            "record_s": [round(each[number][0], 4) for each in rounds],
            "purge_step_s": [round(each[number][1], 4) for each in rounds],
        }
        for number, kept in enumerate(both)
    ]
    rows = [
        f"| {kept.count:,} | {1000 * median(each[n][0] for each in rounds):.0f} | "
        f"{1000 * median(each[n][1] for each in rounds):.0f} |"
        for n, kept in enumerate(both)
    ]
    lines = [
        "# Recording beside much history",
        "",
        f"`python -m benchmarks.kept_frames --out docs/results/recorders --frames {options.frames}`: PostgreSQL, other "
        f"work beside it; {CAMERAS:,} cameras, medians of {options.rounds} in turn.",
        "",
        f"| frames kept | transaction of {CAMERAS:,} verdicts, ms | purging step of {Bounds().purge_rows} frames, ms |",
        "| --- | --- | --- |",
        *rows,
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in (("kept.json", json.dumps(found, indent=1)), ("README.md", "\n".join(lines))):
        with replacing(options.out / name) as fresh:
            fresh.write_text(content + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
