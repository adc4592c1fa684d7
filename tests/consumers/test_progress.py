"""The recorders' progress, committed to Kafka."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from consumers.records import progress as progress_module
from consumers.records.progress import Progress
from schemas.topics import RECORDED_GROUP

OFFSETS = {TopicPartition("verdicts", 0): (5, "300")}


class Clients:
    """A stand-in for Kafka's administration clients: the next failures, the commits, and the open clients."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.commits: list[object] = []
        self.created = self.open = 0

    def __call__(self, _: str) -> Clients:
        self.created += 1
        return self

    async def __aenter__(self) -> Clients:
        self.open += 1
        return self

    async def commit(self, group: str, offsets: object) -> None:
        if self.failures:
            raise self.failures.pop()
        self.commits.append((group, offsets))

    async def close(self) -> None:
        self.open -= 1


@pytest.mark.parametrize("failure", [KafkaError("away"), OSError("gone"), TimeoutError()])
async def test_a_client_is_kept_until_kafka_fails_and_the_next_commit_opens_another(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    clients = Clients()
    monkeypatch.setattr(progress_module, "Admin", clients)
    progress = Progress("nowhere:1")
    await progress.commit({})
    assert clients.created == 0
    await progress.commit(OFFSETS)
    await progress.commit(OFFSETS)
    assert (clients.created, clients.commits) == (1, [(RECORDED_GROUP, OFFSETS)] * 2)
    clients.failures.append(failure)
    await progress.commit(OFFSETS)
    assert (clients.created, clients.open, len(clients.commits)) == (1, 0, 2)
    await progress.commit(OFFSETS)
    assert (clients.created, clients.open, len(clients.commits)) == (2, 1, 3)
    await progress.close()
    assert clients.open == 0
