"""The same tests on the stand-ins for Kafka and MQTT and on the real brokers, so that the stand-ins do not drift."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import paho.mqtt.client as mqtt
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from paho.mqtt.enums import CallbackAPIVersion

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.topics import TopicSpec, create_topics, pointillist_topics
from producers.bridge.mqtt.link import Link
from producers.bridge.mqtt.packets import pubacks
from producers.bridge.settings import BridgeSettings
from schemas.identity import CameraId
from schemas.runtime.health import Health
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import PlainRecord, Sender
from schemas.waiting import cancel
from tests.producers.bridge_rig import new_camera
from tests.producers.kafka_stand_in import KafkaStandIn
from tests.producers.scripted_broker import scripted_broker
from tests.waiting import PATIENCE_S, until

BROKERS = ["stand-in", pytest.param("real", marks=pytest.mark.brokers)]
SMALL_BYTES = 1000


class Log(NamedTuple):
    """A Kafka, a new topic of one partition with small batches, and the values in it."""

    bootstrap: str
    topic: str
    values: Callable[[], Awaitable[list[bytes]]]


@pytest.fixture(params=BROKERS)
async def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Log:
    if request.param == "stand-in":
        stand_in = KafkaStandIn(partitions=1)
        stand_in.patch(monkeypatch)
        stand_in.room = SMALL_BYTES

        async def stand_in_values() -> list[bytes]:
            return [each.value for each in stand_in.log["topic", 0]]

        return Log("nowhere:1", "topic", stand_in_values)
    kafka: Kafka = request.getfixturevalue("kafka")
    topic = f"contract-{new_camera().replace('/', '-')}"
    await create_topics(kafka.bootstrap, {topic: TopicSpec(1, config={"max.message.bytes": str(SMALL_BYTES)})})

    async def read() -> list[bytes]:
        async with Reader(kafka.bootstrap, topic) as reader:
            batches = reader.fetch_until(await reader.ends(reader.assignment()))
            return [each.value async for batch in batches for records in batch.values() for each in records]

    return Log(kafka.bootstrap, topic, read)


def plain(number: int, size: int = 0) -> PlainRecord:
    return PlainRecord(b"key", b"%d" % number + b"x" * size, [("ce_id", b"%d" % number)])


async def test_offsets_of_batches_are_those_in_the_log(log: Log) -> None:
    sender = Sender(log.bootstrap)
    batches: list[tuple[int, int]] = []

    def note(records: Sequence[PlainRecord], offset: int) -> None:
        batches.append((len(records), offset))

    assert await sender.partitions(log.topic) == [0]
    for first, count in ((0, 3), (3, 4)):
        await sender.deliver(log.topic, 0, [plain(first + number) for number in range(count)], note)
    assert batches == [(3, 0), (4, 3)]
    assert await log.values() == [b"%d" % number for number in range(7)]
    await sender.close()


async def test_oversized_records_are_split_off_shrunk_or_returned_and_delay_no_other_record(log: Log) -> None:
    sender = Sender(log.bootstrap)
    small = [plain(number, 100) for number in range(20)]
    shrinking, hopeless = plain(100, 2000), plain(200, 2000)
    refused: list[str] = []
    await sender.send(
        log.topic,
        [*small[:10], shrinking, hopeless, *small[10:]],
        shrink=lambda record: plain(100) if record is shrinking else None,
        refused=lambda record, why: refused.append(f"{(record.value or b'')[:3].decode()}: {why}"),
    )
    assert await log.values() == [record.value for record in (*small[:10], plain(100), *small[10:])]
    assert [each[:4] for each in refused] == ["200:"]
    assert "2003 bytes" in refused[0]
    await sender.close()


@pytest.mark.parametrize("broker", BROKERS)
async def test_progress_of_a_group_is_its_committed_offsets(
    broker: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, group, bootstrap = TopicPartition(KafkaTopic.FRAMES.value, 0), "contract-readers", "nowhere:1"
    if broker == "stand-in":
        stand_in = KafkaStandIn(partitions=1)
        stand_in.patch(monkeypatch)
        stand_in.committed, stand_in.ends = {0: 0}, {0: 0}
    else:
        bootstrap = request.getfixturevalue("kafka").bootstrap
        await create_topics(bootstrap, pointillist_topics())
    async with Reader(bootstrap) as reader, Admin(bootstrap) as admin:
        if broker == "real":
            group = f"{group}-{new_camera().replace('/', '-')}"
            await _commit(bootstrap, group, place)
            assert await admin.committed(f"{group}-others") == {}
        assert await admin.committed(group) == {place: 0}
        [first], [end] = (await reader.beginnings([place])).values(), (await reader.ends([place])).values()
        assert 0 == first <= end


async def _commit(bootstrap: str, group: str, place: TopicPartition) -> None:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([place])
        await consumer.commit({place: 0})


class Mqtt(NamedTuple):
    """An MQTT broker that publishes events and breaks its connections."""

    port: int
    publish: Callable[[CameraId, bytes], object]
    acknowledged: Callable[[], int | None]
    """Messages acknowledged by the bridge; None where the broker does not show them."""
    hang_up: Callable[[], Awaitable[None]]


@asynccontextmanager
async def mqtt_broker(broker: str, request: pytest.FixtureRequest) -> AsyncIterator[Mqtt]:
    if broker == "stand-in":
        async with scripted_broker() as scripted:
            numbers = iter(range(1, 1000))

            def send(camera: CameraId, payload: bytes) -> None:
                scripted.publish(mqtt_topic(camera, Channel.EVENT), payload, next(numbers))

            async def hang_up() -> None:
                scripted.hang_up()

            yield Mqtt(scripted.port, send, lambda: len(scripted.acknowledged), hang_up)
        return
    mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect(mosquitto.host, mosquitto.port)
    client.loop_start()

    def publish(camera: CameraId, payload: bytes) -> None:
        client.publish(mqtt_topic(camera, Channel.EVENT), payload, 1)

    async def restart() -> None:
        await asyncio.to_thread(mosquitto.kill)
        await asyncio.to_thread(mosquitto.start)

    try:
        yield Mqtt(mosquitto.port, publish, lambda: None, restart)
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("broker", BROKERS)
async def test_messages_arrive_in_order_with_packet_ids_and_a_lost_connection_is_replaced(
    broker: str, request: pytest.FixtureRequest
) -> None:
    camera, received, health = new_camera(), list[tuple[int, bytes]](), Health()
    topic = mqtt_topic(camera, Channel.EVENT).encode()

    def note(where: bytes, packet_id: int, payload: bytes, _retained: bool) -> None:
        if where == topic:
            received.append((packet_id, payload))

    async with mqtt_broker(broker, request) as server:
        settings = BridgeSettings(mqtt=f"127.0.0.1:{server.port}", name=f"contract-{broker}", group="contract")
        link = Link(settings, note, lambda: None, health)
        running = asyncio.create_task(link.run())
        try:
            await until(lambda: health.report()[0], "a link that is healthy")
            payloads = [b"%d" % number * (1 + 20_000 * (number == 3)) for number in range(8)]
            for payload in payloads:
                server.publish(camera, payload)
            await until(lambda: len(received) == 8, "all messages")
            assert [payload for _, payload in received] == payloads
            assert all(packet_id > 0 for packet_id, _ in received)
            assert len({packet_id for packet_id, _ in received}) == 8
            link.send(pubacks([packet_id for packet_id, _ in received]))
            await until(lambda: server.acknowledged() in (8, None), "all acknowledged")
            lost = asyncio.create_task(until(lambda: not health.report()[0], "a link that is not healthy"))
            await server.hang_up()
            await lost
            await until(lambda: health.report()[0], "a link that is healthy again")
            await link.close()
            await asyncio.wait_for(running, PATIENCE_S)
            assert not link.writable
        finally:
            await cancel(running)
