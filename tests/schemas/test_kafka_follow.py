"""Following a topic until cancellation, through errors of Kafka and of the handler of its records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Any, ClassVar, Self

import pytest
import structlog

from infra.local.kafka import Kafka
from schemas.transport.backoff import Backoff
from schemas.transport.kafka import follow as module
from schemas.transport.kafka.sender import PlainRecord, Sender
from tests.conftest import TopicFactory
from tests.waiting import running, until


class Broken:
    """A reader whose connections fail or return these batches."""

    attempts: Iterator[list[list[SimpleNamespace]] | None] = iter(())
    begins: ClassVar[list[str]] = []

    def __init__(self, _address: Any, topic: str, *, begin: str) -> None:
        assert topic == "models"
        self.begins.append(begin)

    async def __aenter__(self) -> Self:
        found = next(self.attempts)
        if found is None:
            raise ConnectionError("no broker")
        self._batches = iter(found)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close nothing."""

    async def fetch(self, *, wait_s: float) -> dict[str, list[SimpleNamespace]]:
        assert wait_s > 0
        found = next(self._batches, None)
        if found is None:
            raise asyncio.CancelledError
        return {"place": found}


def record(key: bytes | None, value: bytes | None) -> SimpleNamespace:
    return SimpleNamespace(key=key, value=value)


async def test_a_topic_is_reopened_after_errors_until_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[tuple[bytes, bytes | None]] = []

    def handle(key: bytes, value: bytes | None) -> None:
        handled.append((key, value))
        if value == b"fails" and handled.count((key, value)) == 1:
            raise ValueError("a record that cannot be read")

    a, b = record(b"a", b"fails"), record(b"b", b"fails")
    Broken.attempts = iter([None, [[a]], [[a], [b]], [[b], [], [record(None, None)]]])
    Broken.begins = []
    monkeypatch.setattr(module, "Reader", Broken)
    waits: list[int] = []

    class Waits(Backoff):
        async def wait(self, stop: asyncio.Event | None = None) -> bool:
            waits.append(self.failures)
            self.next_s()
            return False

    monkeypatch.setattr(module, "Backoff", Waits)
    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await module.follow("kafka:9092", "models", handle, begin="latest")
    assert handled == [(b"a", b"fails"), (b"a", b"fails"), (b"b", b"fails"), (b"b", b"fails"), (b"", None)]
    assert Broken.begins == ["latest"] * 4
    assert waits == [0, 1, 0]  # a connection alone is no success, and handled records are one
    assert [(each["event"], each["topic"]) for each in logs][:1] == [("topic_not_read", "models")]


@pytest.mark.brokers
async def test_a_caught_up_reader_has_applied_all_earlier_records(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic, empty = await kafka_topics(), await kafka_topics()
    sender = Sender(kafka.bootstrap)
    try:
        for number in range(6):  # more bytes than one fetch takes
            await sender.send(topic, [PlainRecord(b"%d" % number, bytes(5 * 2**20), [])])
    finally:
        await sender.close()
    applied: dict[str, list[bytes]] = {topic: [], empty: []}
    counts: dict[str, list[int]] = {topic: [], empty: []}

    async def follow(name: str) -> None:
        await module.follow(
            kafka.bootstrap,
            name,
            lambda key, _: applied[name].append(key),
            caught_up=lambda: counts[name].append(len(applied[name])),
        )

    async with running(follow(topic)), running(follow(empty)):
        await until(lambda: counts[topic] and counts[empty], "both topics read to their ends")
    assert (counts[topic][0], counts[empty][0]) == (6, 0)
