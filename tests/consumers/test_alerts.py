from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from consumers.database.alerts import alert_row
from consumers.recorder.alerts import DueAlert, Outbox
from infra.local.kafka import Kafka
from schemas.errors import WireError
from schemas.messages.server_messages import open_alert
from schemas.pointillist_pb2 import Alert, ProbeRequest
from tests.conftest import TopicFactory
from tests.consumers.recorder_rig import KEYS, PNG
from tests.consumers.scene import read_alerts

LIMIT = {"max.message.bytes": "4000"}


def due_alert(number: int, picture: bytes = b"", detail: str = "") -> DueAlert:
    """Return an alert that waits to be published."""
    alert = Alert(alert_id=f"{number}{detail}", camera_id="lab/door", raised_ms=number, thumbnail=picture)
    message = alert_row(alert, 0, KEYS.previews)["message"]
    assert isinstance(message, bytes)
    return DueAlert(alert.alert_id, alert.camera_id, number, message)


@pytest_asyncio.fixture
async def outbox(kafka: Kafka, kafka_topics: TopicFactory) -> AsyncIterator[tuple[Outbox, str]]:
    """Yield an outbox, whose topic of alerts accepts at most 4000 bytes a message, and that topic."""
    alerts = await kafka_topics(config=LIMIT)
    outbox = Outbox(kafka.bootstrap, alerts, await kafka_topics(config={"max.message.bytes": "10"}), KEYS)
    yield outbox, alerts
    await outbox.close()


@pytest.mark.brokers
async def test_an_alert_that_kafka_rejects_stays_unpublished_and_delays_no_other(
    outbox: tuple[Outbox, str], kafka: Kafka
) -> None:
    sender, topic = outbox
    waiting = [due_alert(1), due_alert(2, detail="x" * 5000), due_alert(3)]
    for _ in range(2):
        assert await sender.send(waiting) == ["1", "3"]
    assert {alert.raised_ms for alert in await read_alerts(kafka.bootstrap, topic)} == {1, 3}


@pytest.mark.brokers
async def test_an_alert_whose_stored_message_is_damaged_delays_no_other(
    outbox: tuple[Outbox, str], kafka: Kafka
) -> None:
    sender, topic = outbox
    other = Alert.FromString(due_alert(3).message)
    other.camera_id = "lab/dooq"  # one bit differs
    damaged = [due_alert(1)._replace(message=b"\xff"), due_alert(3)._replace(message=other.SerializeToString())]
    assert await sender.send([*damaged, due_alert(2)]) == ["2"]
    assert {alert.raised_ms for alert in await read_alerts(kafka.bootstrap, topic)} == {2}


@pytest.mark.brokers
async def test_a_consumer_reads_each_signed_alert_once_by_its_id(outbox: tuple[Outbox, str], kafka: Kafka) -> None:
    sender, topic = outbox
    for _ in range(2):  # as after a crash before the recorder stores the acknowledgement
        assert await sender.send([due_alert(1, b"png"), due_alert(2)]) == ["1", "2"]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as forger:
        forged = Alert(alert_id="3", camera_id="lab/door").SerializeToString()
        await forger.send_and_wait(topic, forged, key=b"lab/door", headers=[("ce_id", b"3")])
    found: dict[str, Alert] = {}
    read, forgeries = 0, 0
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        while read < 5:
            record = await consumer.getone()
            read += 1
            try:
                alert = open_alert(record.key.decode(), record.value, KEYS)
            except WireError:
                forgeries += 1
                continue
            assert dict(record.headers)["ce_id"].decode() == alert.alert_id
            alert.ClearField("tag")  # the sealed picture differs each time
            assert found.setdefault(alert.alert_id, alert) == alert
    assert {name: alert.thumbnail for name, alert in found.items()} == {"1": b"png", "2": b""}
    assert forgeries == 1


@pytest.mark.brokers
async def test_an_alert_stored_by_an_earlier_release_is_published_with_its_picture(
    outbox: tuple[Outbox, str], kafka: Kafka
) -> None:
    sender, topic = outbox
    waiting = [due_alert(1), due_alert(2)]
    plain, damaged = (Alert.FromString(each.message) for each in waiting)
    plain.thumbnail, damaged.thumbnail = PNG, b"sealed under another key"
    messages = (plain.SerializeToString(), damaged.SerializeToString())
    assert await sender.send([each._replace(message=m) for each, m in zip(waiting, messages, strict=True)]) == [
        "1",
        "2",
    ]
    held = await read_alerts(kafka.bootstrap, topic)
    assert {(alert.raised_ms, alert.thumbnail) for alert in held} == {(1, PNG), (2, b"")}


@pytest.mark.brokers
async def test_an_alert_too_large_for_kafka_is_published_without_its_picture(
    outbox: tuple[Outbox, str], kafka: Kafka
) -> None:
    sender, topic = outbox
    assert await sender.send([due_alert(1, b"p" * 5000), due_alert(2, b"q")]) == ["1", "2"]
    assert {(alert.raised_ms, alert.thumbnail) for alert in await read_alerts(kafka.bootstrap, topic)} == {
        (1, b""),
        (2, b"q"),
    }


@pytest.mark.brokers
async def test_a_request_that_kafka_rejects_raises_an_error(outbox: tuple[Outbox, str]) -> None:
    sender, _ = outbox
    with pytest.raises(KafkaError, match="MessageSizeTooLarge"):
        await sender.request([("lab/door", ProbeRequest(issued_ms=1, probe_share=0.5))])
