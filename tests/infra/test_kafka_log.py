"""Kafka's files read directly say what Kafka itself says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.kafka_files import committed_offsets, partitions_of, read_topic
from infra.local.topics import TopicSpec, create_topics


@pytest.mark.brokers
async def test_files_hold_the_records_and_commits_that_the_broker_reports(kafka: Any) -> None:
    topic, group = "kafka-log.test", "kafka-log-group"
    await create_topics(kafka.bootstrap, {topic: TopicSpec(partitions=2)})
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
    await producer.start()
    sent = set()
    for number in range(50):
        value = f"value {number}".encode()
        where = await producer.send_and_wait(
            topic, value, key=b"k%d" % number, partition=number % 2, headers=[("ce_id", b"%d" % number)]
        )
        sent.add((where.partition, where.offset, value))
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    await consumer.start()
    await consumer.commit({TopicPartition(topic, 0): 5, TopicPartition(topic, 1): 7})
    await consumer.commit({TopicPartition(topic, 1): 9})
    await consumer.stop()

    data = Path(kafka.folder) / "data"
    records = list(read_topic(data, topic))
    assert partitions_of(data, topic) == [0, 1]
    assert {(r.partition, r.offset, r.value) for r in records} == sent
    assert all(dict(r.headers)["ce_id"] == r.value.split()[1] for r in records if r.value)
    assert committed_offsets(data, group) == {(topic, 0): 5, (topic, 1): 9}
    assert committed_offsets(data, "another group") == {}


def test_a_batch_that_is_not_whole_is_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "t-0"
    folder.mkdir()
    (folder / "00000000000000000000.log").write_bytes(b"\0" * 40)
    assert list(read_topic(tmp_path, "t")) == []
