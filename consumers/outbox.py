"""Alerts from the database to Kafka, at least once: each stays in the outbox until Kafka holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from sqlalchemy import Engine, select, update

from consumers.kafka_client import REQUEST_S, start, stop
from consumers.tables import alerts
from schemas.limits import MAX_BROKER_BYTES
from schemas.pointillist_pb2 import Alert

_AT_ONCE: Final = 100

log = structlog.get_logger()


def unpublished(engine: Engine) -> list[tuple[str, str, bytes]]:
    """Id, camera and message of the oldest alerts that Kafka is not known to hold. For the database thread."""
    with engine.begin() as connection:
        rows = connection.execute(
            select(alerts.c.alert_id, alerts.c.camera, alerts.c.message)
            .where(~alerts.c.published)
            .order_by(alerts.c.raised_ms)
            .limit(_AT_ONCE)
        )
        return [(alert_id, camera, message) for alert_id, camera, message in rows]


def mark_published(engine: Engine, alert_ids: Sequence[str]) -> None:
    """Kafka holds these alerts. For the database thread."""
    with engine.begin() as connection:
        connection.execute(update(alerts).where(alerts.c.alert_id.in_(alert_ids)).values(published=True))


class Outbox:
    """Sends alerts; started when the first one is due, since most recorders never have any."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None

    async def send(self, due: Sequence[tuple[str, str, bytes]]) -> None:
        """Return when Kafka has acknowledged all of them; any error means that none is known to be there."""
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                enable_idempotence=True,
                max_request_size=MAX_BROKER_BYTES,
                request_timeout_ms=REQUEST_S * 1000,
            )
            await start(producer)
            self._producer = producer
        for alert_id, camera, message in due:
            await self._producer.send(self._topic, message, key=camera.encode(), headers=_headers(alert_id, camera))
        await self._producer.flush()
        log.info("alerts_published", count=len(due))

    async def close(self) -> None:
        """Drop the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop(producer)


def _headers(alert_id: str, camera: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", alert_id.encode()),
        ("ce_source", f"pointillist/recorder/{camera}".encode()),
        ("ce_type", Alert.DESCRIPTOR.full_name.encode()),
        ("content-type", b"application/protobuf"),
    ]
