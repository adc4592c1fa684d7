"""One flipped bit in Kafka's log ahead of its reader and one behind it, then a corrupt and an empty database."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.harness.system import RunningSystem, audit
from benchmarks.security.attacks.outcome import Outcome
from infra.audit.kafka_files import committed_offsets
from infra.state_folder import Layout
from infra.up.scrape import Samples
from schemas.metrics import DATABASES_SET_ASIDE, KAFKA_DAMAGED
from schemas.topics import PROCESSORS_GROUP, KafkaTopic

_HEAD: Final = struct.Struct(">qi")
_LAST_DELTA_AT: Final = 23
_IN_THE_RECORDS: Final = 90
_AHEAD: Final = 4


class _Batch(NamedTuple):
    """A batch of records in one of Kafka's files."""

    file: Path
    at: int
    offset: int
    records: int


def attack(folder: Path) -> Outcome:
    """Damage all three.

    The attack succeeds if `up` or the audit ends in a traceback, or if frames other than the damaged ones are lost.
    """
    state = folder / "state"
    layout = Layout(state)
    with RunningSystem(state, "--cameras", 4, "--fps", 5, "--seconds", 60) as system:
        system.await_role("fleet")
        time.sleep(10)
        gone = _flip_before_the_processor(system, layout)
        old = next(_batches(layout, KafkaTopic.VERDICTS))
        _flip(old)
        time.sleep(10)
        passed = _scrape(system, "processor-1").sum(KAFKA_DAMAGED.name)
        _corrupt_database(system, layout)
        time.sleep(5)
        aside = _scrape(system, "recorder").sum(DATABASES_SET_ASIDE.name)
        status, report = system.wait(400)
    audited, found = audit(state)
    for file in (layout.database, *_beside(layout.database)):
        file.unlink(missing_ok=True)
    layout.database.touch()
    empty, _ = audit(state)
    with RunningSystem(state, "--cameras", 1, "--seconds", 5) as system:
        again, _ = system.wait(300)
        text = system.output()
    # The verdicts of the other damaged batch were recorded only in the database that was corrupted later.
    besides = max(0, int(found["frames_lost"]) + int(found["frames_unread"]) - gone - old.records)
    return Outcome(
        what="flipped a bit of Kafka's log before and behind its reader, corrupted the database, then emptied it",
        succeeded="Traceback" in text or besides > 0 or not {status, audited, empty, again} <= {0, 1},
        lost=besides,
        seen={
            "frames_in_the_damaged_batch": gone,
            "verdicts_in_the_damaged_batch": old.records,
            "damaged_records_passed_over": passed,
            "databases_set_aside": aside,
            "exit_status": {"run": status, "audit": audited, "audit of the empty database": empty, "next run": again},
            "unread": found["unread"],
            "said": [line for line in text.splitlines() if line.startswith(("recorder", "unread"))],
            "restarts": report.get("restarts"),
            **{name: found[name] for name in ("frames_published", "frames_recorded", "frames_lost", "frames_unread")},
        },
    )


def _flip_before_the_processor(system: RunningSystem, layout: Layout) -> int:
    """Flip a bit in frames that the processor has not read, and return the number of these frames."""
    system.send("processor-1", signal.SIGSTOP)
    try:
        # The processor does not read again what it has fetched: choose an offset far beyond it.
        time.sleep(1)
        fetched = {batch.file.parent: batch.offset for batch in _batches(layout, KafkaTopic.FRAMES)}
        committed = committed_offsets(layout.kafka_data, PROCESSORS_GROUP)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for batch in list(_batches(layout, KafkaTopic.FRAMES))[::-1]:
                place = (KafkaTopic.FRAMES.value, int(batch.file.parent.name.rpartition("-")[2]))
                if batch.offset > max(fetched.get(batch.file.parent, 0) + _AHEAD, committed.get(place, 0)):
                    _flip(batch)
                    return batch.records
            time.sleep(0.2)
        raise TimeoutError("frames beyond the stopped processor's fetch offset: expected some, got none")
    finally:
        system.send("processor-1", signal.SIGCONT)


def _batches(layout: Layout, topic: KafkaTopic) -> Iterator[_Batch]:
    for file in sorted(layout.kafka_data.glob(f"{topic}-*/*.log")):
        content, at = file.read_bytes(), 0
        while at + _IN_THE_RECORDS < len(content):
            offset, length = _HEAD.unpack_from(content, at)
            (last,) = struct.unpack_from(">i", content, at + _LAST_DELTA_AT)
            yield _Batch(file, at, offset, last + 1)
            at += _HEAD.size + length


def _flip(batch: _Batch) -> None:
    with batch.file.open("r+b") as file:
        file.seek(batch.at + _IN_THE_RECORDS)
        (byte,) = file.read(1)
        file.seek(batch.at + _IN_THE_RECORDS)
        file.write(bytes([byte ^ 1]))


def _corrupt_database(system: RunningSystem, layout: Layout) -> None:
    """Overwrite the database under the recorder and kill the recorder, so that the next one opens the damaged file."""
    pid = system.await_role("recorder")
    os.kill(pid, signal.SIGSTOP)
    for file in _beside(layout.database):
        file.unlink(missing_ok=True)
    with layout.database.open("r+b") as database:
        database.write(b"no database any more" * 1000)
    os.kill(pid, signal.SIGKILL)


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in ("-wal", "-shm")]


def _scrape(system: RunningSystem, role: str) -> Samples:
    address: Any = system.roles().get(role, {}).get("metrics")
    return Samples.scrape([address] if address else [])
