"""Alerts from the database to Kafka, at least once: each stays in the outbox until Kafka holds it.

Requests for probes go the same way, signed, but are made again while they are not obeyed, so they are not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from sqlalchemy import Engine, select, update

from consumers.kafka_client import REQUEST_S, start, stop
from consumers.tables import alerts
from schemas.frame import sign_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.limits import MAX_BROKER_BYTES
from schemas.pointillist_pb2 import Alert, ProbeRequest

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
    """Sends alerts and requests; started when the first one is due, since most recorders never have any."""

    def __init__(self, bootstrap: str, alerts_topic: str, events_topic: str, keys: KeyRing) -> None:
        """`keys` sign the requests: whoever else may write to Kafka can make none."""
        self._keys = keys
        self._bootstrap = bootstrap
        self._alerts_topic = alerts_topic
        self._events_topic = events_topic
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, due: Sequence[tuple[str, str, bytes]]) -> None:
        """Return when Kafka has acknowledged these alerts; any error means that none is known to be there."""
        producer = await self._started()
        for alert_id, camera, message in due:
            headers = _headers(alert_id, camera, Alert.DESCRIPTOR.full_name)
            await producer.send(self._alerts_topic, message, key=camera.encode(), headers=headers)
        await producer.flush()
        log.info("alerts_published", count=len(due))

    async def request(self, requests: Sequence[tuple[str, ProbeRequest]]) -> None:
        """Return when Kafka has acknowledged these requests to cameras."""
        producer = await self._started()
        for camera, request in requests:
            headers = _headers(f"{camera}/{request.issued_ms}", camera, ProbeRequest.DESCRIPTOR.full_name)
            signed = sign_message(self._keys.current(CameraId(camera)), request)
            await producer.send(self._events_topic, signed, key=camera.encode(), headers=headers)
        await producer.flush()

    async def close(self) -> None:
        """Drop the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop(producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
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
            return self._producer


def _headers(event_id: str, camera: str, kind: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", f"pointillist/recorder/{camera}".encode()),
        ("ce_type", kind.encode()),
        ("content-type", b"application/protobuf"),
    ]
