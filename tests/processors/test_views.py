"""Views: a console informs processors through Kafka about the cameras whose pages are open."""

from __future__ import annotations

import asyncio
import time

import pytest

from consumers.console.data.views import Views
from infra.local.kafka import Kafka
from processors.arrivals.views import ViewFeed
from processors.device.certificate_requests import LONGEST_S, MOST_CAMERAS, CertificateRequests
from schemas.errors import BrokerError
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.limits import MAX_CERTIFIED_FRAMES, MAX_VIEWED_CAMERAS
from schemas.transport.kafka.sender import PlainRecord
from tests.conftest import TopicFactory
from tests.waiting import PATIENCE_S, running

SECRET = b"a secret of this test, long enough"
CONSOLE, PROCESSOR = (KeyRing(Roots.of_fleet(SECRET).of(role)) for role in (Role.CONSOLE, Role.PROCESSOR))


def unexpected_request(camera: str, frames: int) -> None:
    raise AssertionError(f"expected no request for certificates, got {frames} for {camera}")


@pytest.mark.brokers
async def test_open_pages_reach_the_processor_until_they_are_closed(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic, seen = await kafka_topics(), list[tuple[str, float]]()
    views = Views(kafka.bootstrap, topic, CONSOLE)
    feed = ViewFeed(
        kafka.bootstrap, topic, PROCESSOR, lambda camera, for_s: seen.append((camera, for_s)), unexpected_request
    )
    async with running(views.run()), running(feed.run()), asyncio.timeout(PATIENCE_S):
        while not any(for_s > 0 for _, for_s in seen):  # a view that arrives late has already expired
            views.note("site/door")
            await asyncio.sleep(0.1)
    assert {camera for camera, _ in seen} == {"site/door"}
    assert 0 < max(for_s for _, for_s in seen) <= 6
    assert views.due(time.monotonic() + 13) == []


def test_a_view_without_the_cameras_tag_changes_nothing() -> None:
    seen: list[str] = []
    feed = ViewFeed("none", "none", PROCESSOR, lambda camera, _: seen.append(camera), unexpected_request)
    views = Views("none", "none", CONSOLE)
    views.note("site/door")
    (record,) = views.due(time.monotonic())
    assert record.value is not None
    feed.apply_record(b"site/other", record.value)
    feed.apply_record(record.key, record.value[:-1] + bytes([record.value[-1] ^ 1]))
    feed.apply_record(b"\xff", record.value)
    feed.apply_record(record.key, b"")
    assert seen == []
    feed.apply_record(record.key, record.value)
    assert seen == ["site/door"]


@pytest.mark.parametrize("pages", [MAX_VIEWED_CAMERAS + 5])
def test_the_most_recently_opened_pages_are_viewed(pages: int) -> None:
    views = Views("none", "none", CONSOLE)
    for index in range(pages):
        views.note(f"site/cam-{index}")
    names = [record.key.decode() for record in views.due(time.monotonic())]
    assert names == [f"site/cam-{index}" for index in range(5, pages)]


def test_a_request_for_certificates_is_sent_once() -> None:
    requested: list[tuple[str, int]] = []
    feed = ViewFeed(
        "none", "none", PROCESSOR, lambda *_: None, lambda camera, frames: requested.append((camera, frames))
    )
    views = Views("none", "none", CONSOLE)
    views.certify("site/door", 3)
    for _ in range(2):
        for record in views.due(time.monotonic()):
            feed.apply_record(record.key, record.value)
    assert requested == [("site/door", 3)]


async def test_a_request_for_certificates_stays_until_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[PlainRecord]] = []

    class LateSender:
        """A sender whose Kafka is unreachable at first."""

        async def send(self, _topic: str, records: list[PlainRecord]) -> None:
            sent.append(records)
            if len(sent) == 1:
                raise BrokerError("away")

        async def close(self, _: float) -> None: ...

    requested: list[tuple[str, int]] = []
    feed = ViewFeed(
        "none", "none", PROCESSOR, lambda *_: None, lambda camera, frames: requested.append((camera, frames))
    )
    views = Views("none", "none", CONSOLE)
    monkeypatch.setattr(views, "_sender", LateSender())
    monkeypatch.setattr("consumers.console.data.views._EVERY_S", 0.01)
    views.certify("site/door", 3)
    for index in range(MAX_VIEWED_CAMERAS):  # pages that are opened later do not displace the request
        views.note(f"site/cam-{index}")
    async with running(views.run()), asyncio.timeout(PATIENCE_S):
        while len(sent) < 3:
            await asyncio.sleep(0)
    for records in sent[1:]:
        for record in records:
            assert record.value is not None
            feed.apply_record(record.key, record.value)
    assert requested == [("site/door", 3)]


def test_a_request_covers_the_next_frames_of_one_camera_until_it_expires() -> None:
    requests = CertificateRequests()
    requests.request("site/door", 2, now_s=10)
    assert [requests.claim(name, 11) for name in ("site/gate", "site/door", "site/door", "site/door")] == [
        False, True, True, False,
    ]  # fmt: skip
    requests.request("site/door", 1000, now_s=10)
    assert sum(requests.claim("site/door", 12) for _ in range(1000)) == MAX_CERTIFIED_FRAMES
    requests.request("site/door", 1, now_s=10)
    assert not requests.claim("site/door", 10 + LONGEST_S)
    for index in range(MOST_CAMERAS + 1):
        requests.request(f"site/cam-{index}", 1, now_s=100)
    assert not requests.claim(f"site/cam-{MOST_CAMERAS}", 101)
