"""Kafka's files, read directly, compared with the answers of Kafka."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from infra.audit.kafka_files import committed_offsets, partitions_of, read_topic
from infra.local.topics import TopicSpec, create_topics


@pytest.mark.brokers
async def test_files_contain_the_records_and_commits_that_the_broker_reports(kafka: Any) -> None:
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


def batch(offset: int, epoch: int, values: list[bytes]) -> bytes:
    """Return a batch of records in the form of Kafka's log, written in this leader epoch."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 0, b"key", value, [])
    content = bytearray(builder.build())
    struct.pack_into(">q", content, 0, offset)
    struct.pack_into(">i", content, struct.calcsize(">qi"), epoch)  # the checksum covers neither
    return bytes(content)


def write_replica(node: Path, batches: list[bytes]) -> Path:
    """Write a node's replica of the partition t-0 and return the node's folder."""
    folder = node / "t-0"
    folder.mkdir(parents=True)
    (folder / "00000000000000000000.log").write_bytes(b"".join(batches))
    return node


def test_the_replica_of_the_latest_leader_is_read(tmp_path: Path) -> None:
    shared = [batch(0, 1, [b"a", b"b"])]
    # The dead leader has more records, none of them acknowledged. The next leader wrote other records.
    dead = write_replica(tmp_path / "1", [*shared, batch(2, 1, [b"lost", b"lost", b"lost"])])
    behind = write_replica(tmp_path / "2", [*shared, batch(2, 2, [b"c"])])
    leads = write_replica(tmp_path / "3", [*shared, batch(2, 2, [b"c"]), batch(3, 2, [b"d"])])
    empty = write_replica(tmp_path / "4", [])
    missing = tmp_path / "5"
    for nodes in ([dead, behind, leads, empty, missing], [leads, missing, empty, dead, behind]):
        assert [record.value for record in read_topic(nodes, "t")] == [b"a", b"b", b"c", b"d"]
        assert partitions_of(nodes, "t") == [0]
    assert list(read_topic([empty, missing], "t")) == []
