"""Views: the cameras whose pages are open, from a console to processors through Kafka."""

from __future__ import annotations

import asyncio
import time

import pytest

from consumers.console.data.views import MOST_VIEWS, Views
from infra.local.kafka import Kafka
from processors.arrivals.views import ViewFeed
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from tests.conftest import TopicFactory

SECRET = b"a secret of this test, long enough"
CONSOLE, PROCESSOR = (KeyRing(Roots.of_fleet(SECRET).of(role)) for role in (Role.CONSOLE, Role.PROCESSOR))


@pytest.mark.brokers
async def test_open_pages_reach_the_processor_until_they_are_closed(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic, seen = await kafka_topics(), list[tuple[str, float]]()
    views = Views(kafka.bootstrap, topic, CONSOLE)
    feed = ViewFeed(kafka.bootstrap, topic, PROCESSOR, lambda camera, for_s: seen.append((camera, for_s)))
    tasks = [asyncio.create_task(views.run()), asyncio.create_task(feed.run())]
    try:
        async with asyncio.timeout(60):
            while not seen:
                views.note("site/door")
                await asyncio.sleep(0.1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert {camera for camera, _ in seen} == {"site/door"}
    assert 0 < max(for_s for _, for_s in seen) <= 6
    assert views.due(time.monotonic() + 13) == []


def test_a_view_without_the_cameras_tag_changes_nothing() -> None:
    seen: list[str] = []
    feed = ViewFeed("none", "none", PROCESSOR, lambda camera, _: seen.append(camera))
    views = Views("none", "none", CONSOLE)
    views.note("site/door")
    (record,) = views.due(time.monotonic())
    assert record.value is not None
    feed.take(b"site/other", record.value)
    feed.take(record.key, record.value[:-1] + bytes([record.value[-1] ^ 1]))
    feed.take(b"\xff", record.value)
    feed.take(record.key, b"")
    assert seen == []
    feed.take(record.key, record.value)
    assert seen == ["site/door"]


@pytest.mark.parametrize("pages", [MOST_VIEWS + 5])
def test_the_pages_opened_last_are_viewed(pages: int) -> None:
    views = Views("none", "none", CONSOLE)
    for index in range(pages):
        views.note(f"site/cam-{index}")
    names = [record.key.decode() for record in views.due(time.monotonic())]
    assert names == [f"site/cam-{index}" for index in range(5, pages)]
