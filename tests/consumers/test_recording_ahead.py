"""Kafka is read while the database is written to, and what was read too early is not lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from benchmarks.harness.recorder_store import MadeRecord
from consumers.recorder.recorder import Recorder
from consumers.records.batch import Record
from consumers.settings import RecorderSettings
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import KEYS
from tests.waiting import until


class Source:
    """A log that has a record at each call, three times."""

    def __init__(self) -> None:
        self.calls = 0

    async def gather(self, _linger_s: float, _limit: int) -> list[Record]:
        self.calls += 1
        if self.calls > 3:
            await asyncio.Event().wait()
        return [MadeRecord("verdicts", 0, self.calls - 1, None, None)]

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        yield


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    settings = RecorderSettings(
        kafka="127.0.0.1:1", database=f"sqlite:///{tmp_path}/r.sqlite", quarantine=str(tmp_path)
    )
    return Recorder(settings, KEYS, CollectorRegistry(), Health(), asyncio.Event())


async def test_the_next_records_are_read_while_some_are_written_and_all_are_in_order(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, written = Source(), list[int]()

    async def write(records: Sequence[Record]) -> None:
        await until(lambda: source.calls > records[0].offset + 1)
        written.append(records[0].offset)
        if records[0].offset == 2:
            recorder._stop.set()

    monkeypatch.setattr(recorder, "_write", write)
    await asyncio.wait_for(recorder._record_all(source, 10), 20)  # type: ignore[arg-type]  # what it uses of a log
    assert written == [0, 1, 2]
    recorder.close()


async def test_an_error_of_writing_ends_the_reading_ahead(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()

    async def write(_records: Sequence[Record]) -> None:
        await until(lambda: source.calls == 2)
        raise RuntimeError("away")

    monkeypatch.setattr(recorder, "_write", write)
    with pytest.raises(RuntimeError, match="away"):
        await recorder._record_all(source, 10)  # type: ignore[arg-type]  # what it uses of a log
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    recorder.close()
