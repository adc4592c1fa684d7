"""Alerts from the database to Kafka, at least once: each is sent until Kafka has acknowledged it.

An alert may be sent twice, after a crash or by two recorders of a group. Its id follows from its evidence, so a
consumer removes duplicates by id. Requests for probes go the same way, signed. They are not kept: the plan of probes
repeats a request until the camera obeys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError
from sqlalchemy import Engine, func, select, tuple_, update

from consumers.database.alerts import stored_alert
from consumers.database.tables import alerts
from consumers.database.thread import DatabaseCorruptError, DatabaseThread, Stopped
from schemas.errors import BrokerError, error_text
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.cloudevents import RECORDER, event_headers
from schemas.messages.frame import sign_message
from schemas.messages.server_messages import sealed_alert
from schemas.pointillist_pb2 import Alert, ProbeRequest
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.sender import Headers, PlainRecord, Sender

PUBLISH_S: Final = 30.0
"""Seconds that Kafka has to acknowledge a batch, before it counts as away."""
_AT_ONCE: Final = 100

log = structlog.get_logger()


class DueAlert(NamedTuple):
    """An alert that Kafka has not acknowledged."""

    alert_id: str
    camera: str
    raised_ms: int
    message: bytes


def unpublished(engine: Engine, after: DueAlert | None = None) -> list[DueAlert]:
    """Return the oldest alerts without an acknowledgement, of those that come `after` one. For the database thread."""
    place = tuple_(alerts.c.raised_ms, alerts.c.alert_id)
    query = (
        select(alerts.c.alert_id, alerts.c.camera, alerts.c.raised_ms, alerts.c.message)
        .where(~alerts.c.published)
        .order_by(alerts.c.raised_ms, alerts.c.alert_id)
        .limit(_AT_ONCE)
    )
    if after is not None:
        query = query.where(place > (after.raised_ms, after.alert_id))
    with engine.begin() as connection:
        return [DueAlert(*row) for row in connection.execute(query)]


def count_unpublished(engine: Engine) -> int:
    """Return the number of alerts that Kafka has not acknowledged. For the database thread."""
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(alerts).where(~alerts.c.published)) or 0


def mark_published(engine: Engine, alert_ids: Sequence[str]) -> None:
    """Note that Kafka has acknowledged these alerts. For the database thread."""
    with engine.begin() as connection:
        connection.execute(update(alerts).where(alerts.c.alert_id.in_(alert_ids)).values(published=True))


class _SealedAlert(NamedTuple):
    """An alert as a record of Kafka."""

    alert: Alert
    key: bytes
    value: bytes
    headers: Headers


class Outbox:
    """Sends alerts and requests; connects when the first one is due, since most recorders never have any.

    An alert that Kafka gets twice is the same by its id.
    """

    def __init__(self, bootstrap: KafkaAddress, alerts_topic: str, events_topic: str, keys: KeyRing) -> None:
        """Prepare. `keys` sign every record: nobody else who may write to Kafka can forge one."""
        self._keys = keys
        self._alerts_topic = alerts_topic
        self._events_topic = events_topic
        self._sender = Sender(bootstrap)

    async def send(self, due: Sequence[DueAlert]) -> list[str]:
        """Send the alerts; return the ids of the acknowledged ones when Kafka has answered to all.

        The others are rejected, also those whose stored message is damaged. An alert that is too large is sent without
        its picture. After an error, the fate of all of them is unknown.
        """
        sent: list[str] = []
        records: list[_SealedAlert] = []

        def reject(alert_id: str, why: str) -> None:
            log.error("alert_rejected", alert_id=alert_id[:80], error=why[:300])

        def refused(record: _SealedAlert, why: str) -> None:
            reject(record.alert.alert_id, why)

        for each in due:
            try:
                alert = stored_alert(each.message, lambda: self._keys.previews)
                if (alert.alert_id, alert.camera_id) != each[:2]:
                    raise DecodeError("it names another alert or camera than its row")
            except DecodeError as error:
                reject(each.alert_id, f"message: expected an alert, got damaged bytes: {error}")
            else:
                records.append(self._sealed(alert))
        await self._sender.send(
            self._alerts_topic,
            records,
            lambda record: sent.append(record.alert.alert_id),
            shrink=self._without_picture,
            refused=refused,
            once=True,
        )
        if sent:
            log.info("alerts_published", count=len(sent))
        return sent

    def _sealed(self, alert: Alert) -> _SealedAlert:
        headers = event_headers(RECORDER, Alert, alert.alert_id)
        return _SealedAlert(alert, alert.camera_id.encode(), sealed_alert(alert, self._keys), headers)

    def _without_picture(self, record: _SealedAlert) -> _SealedAlert | None:
        if not record.alert.thumbnail:
            return None
        record.alert.ClearField("thumbnail")
        return self._sealed(record.alert)

    async def request(self, requests: Sequence[tuple[str, ProbeRequest]]) -> None:
        """Send requests to cameras; return when Kafka has acknowledged them. Raises its error if it rejects one."""
        records = [
            PlainRecord(
                camera.encode(),
                sign_message(self._keys.current(CameraId(camera)), request),
                event_headers(RECORDER, ProbeRequest, f"{camera}/{request.issued_ms}"),
            )
            for camera, request in requests
        ]
        await self._sender.send(self._events_topic, records, once=True)

    async def close(self) -> None:
        """Drop the connection."""
        await self._sender.close()


class Alerts:
    """Publishes the alerts in the database as soon as they are `due`, and again while Kafka does not take them."""

    def __init__(self, outbox: Outbox, engine: Engine, database: DatabaseThread) -> None:
        self._outbox = outbox
        self._engine = engine
        self._database = database
        self.due = asyncio.Event()
        """Set when there may be an alert to publish."""

    async def publish(self) -> None:
        """Publish until cancelled. Raises `Stopped` and `DatabaseCorruptError`."""
        backoff = Backoff()
        while True:
            await self.due.wait()
            self.due.clear()
            try:
                await self.publish_due()
                backoff.reset()
            except (Stopped, DatabaseCorruptError):
                raise
            except Exception as error:  # the alerts stay in the database, whatever the error is
                log.warning("alerts_not_published", error=error_text(error))
                await self._outbox.close()
                self.due.set()
                await backoff.wait()

    async def publish_due(self) -> None:
        """Publish what waits, the oldest first; a rejected alert stays and delays no other one."""
        after: DueAlert | None = None
        refused = 0
        while due := await self._database.run(unpublished, self._engine, after):
            after = due[-1]
            sent = await asyncio.wait_for(self._outbox.send(due), PUBLISH_S)
            await self._database.run(mark_published, self._engine, sent)
            refused += len(due) - len(sent)
        if refused:
            raise BrokerError(f"alerts: expected Kafka to accept all, it rejected {refused}. They are sent again.")
