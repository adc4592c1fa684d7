"""Kafka topics: their partitions and bounds, and their creation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from schemas.errors import BrokerError
from schemas.limits import MAX_BROKER_BYTES
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress

if TYPE_CHECKING:
    from schemas.transport.kafka.admin import Admin

MEBIBYTE = 1024 * 1024
DAY_MS = 24 * 3600 * 1000
RETENTION_S: Final = 86_400.0
"""Seconds for which new topics keep their records, unless a setting changes it."""
LEAST_RETENTION_S: Final = 3600.0
MOST_RETENTION_S: Final = 7 * 86_400.0
"""Kafka deletes the offsets of a group that has been stopped for seven days."""
COPIES: Final = 3
"""Copies of each partition on several nodes: any one may be lost."""

_NO_ERROR = 0
_TOPIC_ALREADY_EXISTS = 36
_PASSING = {5, 6, 7, 15, 41}
"""Errors of a broker that has just started: no leader, not the leader, timed out, no coordinator, not the
controller."""


@dataclass(frozen=True)
class TopicSpec:
    """Partitions, copies, and the bounds of each partition's log."""

    partitions: int = 1
    replication: int = 1
    retention_bytes: int = 256 * MEBIBYTE
    retention_ms: int = round(1000 * RETENTION_S)
    compacted: bool = False
    """Keep the newest record of each key instead of the newest bytes."""
    config: Mapping[str, str] = field(default_factory=dict)
    """More topic settings, by Kafka's names; they take precedence."""

    def settings(self) -> dict[str, str]:
        """Return the topic's configuration by Kafka's names."""
        bounds = {
            "max.message.bytes": str(MAX_BROKER_BYTES),
            # A broker's own default may compress records by a codec that no reader has.
            "compression.type": "producer",
            # Retention must not follow the clock of a sender.
            "message.timestamp.type": "LogAppendTime",
            # Only whole segments are deleted, so a segment is a fraction of what is kept.
            "segment.bytes": str(max(MEBIBYTE, min(64 * MEBIBYTE, self.retention_bytes // 4))),
        }
        if self.replication > 1:
            bounds["min.insync.replicas"] = str(acknowledging(self.replication))
        if self.compacted:
            bounds["cleanup.policy"] = "compact"
        else:
            bounds |= {"retention.bytes": str(self.retention_bytes), "retention.ms": str(self.retention_ms)}
        return bounds | dict(self.config)


def acknowledging(copies: int) -> int:
    """Return the copies that must have a record before its acknowledgement: all but one, which may be unavailable."""
    return max(1, copies - 1)


def pointillist_topics(
    partitions: int = 4, replication: int = 1, retention_s: float | None = None
) -> dict[str, TopicSpec]:
    """Return every topic of the system; those keyed by camera have `partitions` partitions.

    `retention_s` is the time for which a topic keeps its records, in seconds; None means `RETENTION_S`.
    """
    keyed = TopicSpec(partitions, replication)
    topics = {
        # Bridges stop accepting frames or events well before unread records fill a partition of these topics:
        # BridgeSettings.max_backlog_bytes, MAX_UNRECORDED_BYTES.
        KafkaTopic.FRAMES.value: TopicSpec(partitions, replication, retention_bytes=1024 * MEBIBYTE),
        KafkaTopic.EVENTS.value: keyed,
        KafkaTopic.VERDICTS.value: keyed,
        KafkaTopic.COMPARISONS.value: TopicSpec(partitions, replication, retention_bytes=64 * MEBIBYTE),
        KafkaTopic.ALERTS.value: TopicSpec(partitions, replication, retention_bytes=64 * MEBIBYTE),
        KafkaTopic.DEAD_LETTERS.value: keyed,
        # Processors read it whole when they start: small segments, because the newest one is never compacted.
        KafkaTopic.MODELS.value: TopicSpec(
            1, replication, compacted=True, config={"segment.bytes": str(MEBIBYTE), "segment.ms": str(DAY_MS)}
        ),
        KafkaTopic.VIEWS.value: TopicSpec(1, replication, retention_bytes=MEBIBYTE),
    }
    if retention_s is None:
        return topics
    return {name: replace(spec, retention_ms=round(1000 * retention_s)) for name, spec in topics.items()}


async def usual_replication(bootstrap: KafkaAddress) -> int:
    """Return the copies that suit the Kafka at `bootstrap`: one if it has one node, else three.

    With two nodes of three alive, Kafka then refuses new topics, where one copy could lose frames. Raises BrokerError
    when Kafka does not answer.
    """
    from aiokafka.errors import KafkaError

    from schemas.transport.kafka.admin import Admin

    try:
        async with Admin(bootstrap) as admin:
            nodes = (await admin.cluster()).nodes
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(
            f"Kafka at {bootstrap}: expected its nodes, got {type(error).__name__}. Check its log, or set "
            "--replication."
        ) from error
    return 1 if len(nodes) == 1 else COPIES


async def create_topics(bootstrap: KafkaAddress, topics: Mapping[str, TopicSpec], deadline_s: float = 30.0) -> None:
    """Create those of `topics` that do not exist yet on the Kafka at `bootstrap` (`host:port`) and leave the others.

    Raises BrokerError when Kafka does not answer within `deadline_s` seconds or refuses a topic.
    """
    from aiokafka.admin import NewTopic
    from aiokafka.errors import for_code

    from schemas.transport.kafka.administration import administer

    requests = [
        NewTopic(name, spec.partitions, spec.replication, topic_configs=spec.settings())
        for name, spec in topics.items()
    ]

    async def create(admin: Admin) -> None:
        passing = []
        for name, (code, message) in (await admin.create_topics(requests)).items():
            if code in _PASSING:
                passing.append(for_code(code)(name))
            elif code not in (_NO_ERROR, _TOPIC_ALREADY_EXISTS):
                raise BrokerError(
                    f"Kafka at {bootstrap}: expected it to create {name}, got error {code}: {message}. Check its log."
                )
        if passing:
            raise passing[0]

    if requests:
        await administer(bootstrap, "create topics", create, deadline_s)


async def set_retention(bootstrap: KafkaAddress, retention_s: float, deadline_s: float = 30.0) -> None:
    """Set the time for which the existing topics of the system keep their records; compacted ones keep the newest.

    Raises BrokerError when Kafka does not answer within `deadline_s` seconds, or refuses it.
    """
    from schemas.transport.kafka.administration import administer

    names = [name for name, spec in pointillist_topics().items() if not spec.compacted]
    settings = {"retention.ms": str(round(1000 * retention_s))}
    await administer(
        bootstrap, "change its topics", lambda admin: admin.set_topics(*names, settings=settings), deadline_s
    )


async def prepare_topics(
    address: KafkaAddress,
    topics: Mapping[str, TopicSpec],
    retention_s: float | None,
    generations: Mapping[str, int] | None,
) -> None:
    """Create the missing `topics` and set their retention; concurrently, set the rights by the roles' `generations`.

    None leaves the retention, or the rights, as they are. Both parts are tried before an error is raised. Raises
    BrokerError when Kafka does not answer or refuses something.
    """
    from infra.pki.kafka_rights import grant, withdraw

    async def create() -> None:
        await create_topics(address, topics)
        if retention_s is not None:
            await set_retention(address, retention_s)

    async def allow() -> None:
        if generations is not None:
            await grant(address, generations=generations)
            await withdraw(address, generations)

    for failure in await asyncio.gather(create(), allow(), return_exceptions=True):
        if failure is not None:
            raise failure
