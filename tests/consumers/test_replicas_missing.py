"""A recorder sees in what Kafka says of its partitions that a node is away."""

from __future__ import annotations

from types import SimpleNamespace

from consumers.records.log import Log
from consumers.settings import RecorderSettings

ALL = (1, 2, 3)


def _partition(replicas: tuple[int, ...], isr: tuple[int, ...]) -> SimpleNamespace:
    return SimpleNamespace(replicas=replicas, isr=isr)


def test_copies_that_are_away_or_behind_are_counted_of_the_topics_that_are_read() -> None:
    log = Log(RecorderSettings(kafka="127.0.0.1:1"), ("read",), 1)
    assert log.replicas_missing() == 0
    partitions = {
        "read": {0: _partition(ALL, (3, 1, 2)), 1: _partition(ALL, (1, 3)), 2: _partition(ALL, (2,))},
        "other": {0: _partition(ALL, (1,))},
    }
    log._reader._consumer = SimpleNamespace(_client=SimpleNamespace(cluster=SimpleNamespace(_partitions=partitions)))
    assert log.replicas_missing() == 3
