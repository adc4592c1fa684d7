"""The check of the consumer group, with a stand-in for Kafka's administration."""

from __future__ import annotations

from typing import Any

from processors.arrivals.group_watch import GroupReport, GroupWatch
from processors.settings import ProcessorSettings


class NoTopics:
    """A node that knows no partition of any topic, as while it starts."""

    async def partitions(self, *_: str) -> list[Any]:
        return []


async def test_a_topic_counts_as_deleted_after_two_successive_answers_without_it() -> None:
    watch = GroupWatch(ProcessorSettings.model_validate({"kafka": "127.0.0.1:1"}), lambda _: None)
    found: list[GroupReport] = [await watch._check(NoTopics()) for _ in range(2)]  # type: ignore[arg-type]
    assert [each.topic_lost for each in found] == [False, True]
    assert all("has none of that name" in (each.unread or "") for each in found)
