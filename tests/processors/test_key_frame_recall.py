"""The recall of spans of open groups: after an error it resumes at the next unread record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Self

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

import processors.arrivals.key_frame_recall as module
from processors.arrivals.key_frame_recall import KeyFrameRecall
from tests.waiting import PATIENCE_S, running

PLACE = TopicPartition("frames", 3)


class Log:
    """A reader of a log with two records in each fetch, which fails at the fetches in `failures`.

    The records at the offsets in `large` are large.
    """

    failures: frozenset[int] = frozenset()
    large: frozenset[int] = frozenset()
    fetches = 0

    @classmethod
    def value(cls, offset: int) -> bytes:
        return b"x" * (100 if offset in cls.large else 10)

    def __init__(self, *_: object, **__: object) -> None:
        self.at = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: no connection is open."""

    def assign(self, places: list[TopicPartition]) -> None:
        assert places == [PLACE]

    def seek(self, offsets: dict[TopicPartition, int]) -> None:
        self.at = offsets[PLACE]

    async def fetch_until(self, ends: dict[TopicPartition, int]) -> AsyncIterator[dict[TopicPartition, list[Any]]]:
        while self.at < ends[PLACE]:
            type(self).fetches += 1
            if self.fetches in self.failures:
                raise KafkaConnectionError("away")
            yield {PLACE: [SimpleNamespace(offset=at, value=self.value(at)) for at in (self.at, self.at + 1)]}
            self.at += 2


async def restored(monkeypatch: pytest.MonkeyPatch, *failures: int, revoked_at: int | None = None) -> list[int | None]:
    """Recall the span 4 … 10, and return the offsets that are passed on, with None for the end.

    `failures` are the numbers of the fetches that fail. At the offset `revoked_at`, the partition is revoked and
    assigned again with the same span.
    """
    reader = type("Failing", (Log,), {"failures": frozenset(failures)})
    monkeypatch.setattr(module, "Reader", reader)
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    found: list[int | None] = []
    ended = asyncio.Event()

    def passed(partition: int, record: Any) -> None:
        assert partition == PLACE.partition
        found.append(None if record is None else record.offset)
        if record is None:
            ended.set()
        elif record.offset == revoked_at and found.count(revoked_at) == 1:
            del recall.spans[3]
            recall.request_span(3, range(4, 11))  # equal to the first span, but another object

    recall = KeyFrameRecall("nowhere:1", "frames", lambda *_: None, passed)
    recall.request_span(3, range(4, 11))
    async with running(recall.run()), asyncio.timeout(PATIENCE_S):
        await ended.wait()
    return found


@pytest.mark.parametrize("failures", [(), (1,), (2, 3), (1, 2, 3, 4)])
async def test_each_record_of_a_span_is_passed_on_once_despite_errors(
    monkeypatch: pytest.MonkeyPatch, failures: tuple[int, ...]
) -> None:
    assert await restored(monkeypatch, *failures) == [*range(4, 11), None]


async def test_a_span_that_is_requested_again_while_it_is_read_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await restored(monkeypatch, revoked_at=6)
    assert found == [4, 5, 6, *range(4, 11), None]


async def test_a_span_ends_after_several_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await restored(monkeypatch, *range(2, 100)) == [4, 5, None]


async def test_a_span_above_the_limit_of_bytes_goes_on_with_its_newest_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", 35)
    assert await restored(monkeypatch) == [4, 5, 6, 7, 9, 10, None]
    assert await restored(monkeypatch, 3) == [4, 5, 6, 7, 9, 10, None]  # the first fetch of the newest part fails


async def test_a_span_of_large_new_records_ends_with_the_newest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", 35)
    monkeypatch.setattr(Log, "large", frozenset({9}))
    assert await restored(monkeypatch) == [4, 5, 6, 7, 9, 10, None]
