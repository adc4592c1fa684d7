from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaError

from consumers.alerts import Due, Outbox
from infra.local.kafka import Kafka
from schemas.pointillist_pb2 import Alert, ProbeRequest
from tests.conftest import TopicFactory
from tests.consumers.recorder_rig import KEYS
from tests.consumers.scene import alerts_held

LIMIT = {"max.message.bytes": "4000"}


def due(number: int, picture: bytes = b"", detail: str = "") -> Due:
    """An alert that waits."""
    alert = Alert(alert_id=f"{number}{detail}", camera_id="lab/door", raised_ms=number, thumbnail=picture)
    return Due(alert.alert_id, alert.camera_id, number, alert.SerializeToString())


@pytest_asyncio.fixture
async def outbox(kafka: Kafka, kafka_topics: TopicFactory) -> AsyncIterator[tuple[Outbox, str]]:
    """An outbox whose topics take no message above 4000 bytes, and the alerts' topic."""
    alerts = await kafka_topics(config=LIMIT)
    made = Outbox(kafka.bootstrap, alerts, await kafka_topics(config={"max.message.bytes": "10"}), KEYS)
    yield made, alerts
    await made.close()


@pytest.mark.brokers
async def test_an_alert_that_kafka_refuses_does_not_count_as_published_and_holds_none_back(
    outbox: tuple[Outbox, str], kafka: Kafka
) -> None:
    sender, topic = outbox
    waiting = [due(1), due(2, detail="x" * 5000), due(3)]
    for _ in range(2):
        assert await sender.send(waiting) == ["1", "3"]
    assert {alert.raised_ms for alert in await alerts_held(kafka.bootstrap, topic)} == {1, 3}


@pytest.mark.brokers
async def test_an_alert_too_large_for_kafka_goes_without_its_picture(outbox: tuple[Outbox, str], kafka: Kafka) -> None:
    sender, topic = outbox
    assert await sender.send([due(1, b"p" * 5000), due(2, b"q")]) == ["1", "2"]
    assert {(alert.raised_ms, alert.thumbnail) for alert in await alerts_held(kafka.bootstrap, topic)} == {
        (1, b""),
        (2, b"q"),
    }


@pytest.mark.brokers
async def test_a_request_that_kafka_refuses_is_an_error(outbox: tuple[Outbox, str]) -> None:
    sender, _ = outbox
    with pytest.raises(KafkaError, match="MessageSizeTooLarge"):
        await sender.request([("lab/door", ProbeRequest(issued_ms=1, probe_share=0.5))])
