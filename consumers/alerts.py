"""Alerts from the database to Kafka, at least once: each stays in the outbox until Kafka holds it.

Requests for probes go the same way, signed, but are made again while they are not obeyed, so they are not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Engine, func, select, tuple_, update

from consumers.database.tables import alerts
from consumers.database.thread import Damaged, DatabaseThread, Stopped
from consumers.database.turns import release_alerts, take_alerts
from consumers.published import published_since
from schemas.cloudevents import RECORDER, event_headers
from schemas.errors import BrokerError
from schemas.frame import sign_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Alert, ProbeRequest
from schemas.statements import sealed_alert
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.sender import Headers, Plain, Sender

PUBLISH_S: Final = 30.0
"""How long Kafka may take for what is sent at once, before it counts as away."""
_AT_ONCE: Final = 100

log = structlog.get_logger()


class Due(NamedTuple):
    """An alert that Kafka is not known to hold."""

    alert_id: str
    camera: str
    raised_ms: int
    message: bytes


def unpublished(engine: Engine, after: Due | None = None) -> list[Due]:
    """The oldest alerts that Kafka is not known to hold, of those that come `after` one. For the database thread."""
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
        return [Due(*row) for row in connection.execute(query)]


def still_due(engine: Engine, due: Sequence[Due]) -> list[Due]:
    """Those of `due` that no other recorder publishes or has published. For the database thread."""
    mine = take_alerts(engine, [each.alert_id for each in due])
    query = select(alerts.c.alert_id).where(alerts.c.alert_id.in_(mine), ~alerts.c.published)
    with engine.begin() as connection:
        left = set(connection.scalars(query))
    return [each for each in due if each.alert_id in left]


def count_unpublished(engine: Engine) -> int:
    """How many alerts Kafka is not known to hold. For the database thread."""
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(alerts).where(~alerts.c.published)) or 0


def mark_published(engine: Engine, alert_ids: Sequence[str]) -> None:
    """Kafka holds these alerts. For the database thread."""
    with engine.begin() as connection:
        connection.execute(update(alerts).where(alerts.c.alert_id.in_(alert_ids)).values(published=True))


class _Sealed(NamedTuple):
    """An alert as Kafka gets it."""

    alert: Alert
    key: bytes
    value: bytes
    headers: Headers


class Outbox:
    """Sends alerts and requests; connects when the first one is due, since most recorders never have any.

    An alert that Kafka gets twice is the same by its id.
    """

    def __init__(self, bootstrap: KafkaAddress, alerts_topic: str, events_topic: str, keys: KeyRing) -> None:
        """`keys` sign all of it: whoever else may write to Kafka can make none."""
        self._keys = keys
        self._bootstrap = bootstrap
        self._alerts_topic = alerts_topic
        self._events_topic = events_topic
        self._sender = Sender(bootstrap)

    async def send(self, due: Sequence[Due]) -> list[str]:
        """Ids of the alerts that Kafka has acknowledged, when it has answered to all; the others it has refused.

        One that is too large goes without its picture. Any error means that none is known to be there.
        """
        sent: list[str] = []

        def refused(record: _Sealed, why: str) -> None:
            log.error("alert_refused", alert_id=record.alert.alert_id[:80], error=why[:300])

        await self._sender.send(
            self._alerts_topic,
            [self._sealed(Alert.FromString(each.message)) for each in due],
            lambda record: sent.append(record.alert.alert_id),
            shrink=self._without_picture,
            refused=refused,
            once=True,
        )
        if sent:
            log.info("alerts_published", count=len(sent))
        return sent

    async def published(self, due: Sequence[Due]) -> set[str]:
        """Those of the alerts `due`, at least one, that Kafka holds."""
        since_ms = min(each.raised_ms for each in due)
        held = await published_since(self._bootstrap, self._alerts_topic, since_ms)
        return {each.alert_id for each in due if each.alert_id in held}

    def _sealed(self, alert: Alert) -> _Sealed:
        headers = event_headers(RECORDER, Alert, alert.alert_id)
        return _Sealed(alert, alert.camera_id.encode(), sealed_alert(alert, self._keys), headers)

    def _without_picture(self, record: _Sealed) -> _Sealed | None:
        if not record.alert.thumbnail:
            return None
        record.alert.ClearField("thumbnail")
        return self._sealed(record.alert)

    async def request(self, requests: Sequence[tuple[str, ProbeRequest]]) -> None:
        """Return when Kafka has acknowledged these requests to cameras; raises what it says of one that it refuses."""
        records = [
            Plain(
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
        """To be set when there may be one to publish."""
        self._new: set[str] = set()
        """Raised by this recorder, and never sent."""

    def take(self, raised: Sequence[Alert]) -> None:
        """These were raised just now."""
        if raised:
            self._new.update(alert.alert_id for alert in raised)
            self.due.set()

    async def publish(self) -> None:
        """Publish for ever; raises `Stopped` and `Damaged`."""
        backoff = Backoff()
        while True:
            await self.due.wait()
            self.due.clear()
            try:
                await self.publish_due()
                backoff.reset()
            except (Stopped, Damaged):
                raise
            except Exception as error:  # the alerts stay in the outbox, whatever Kafka says
                log.warning("alerts_not_published", error=str(error) or type(error).__name__)
                await self._outbox.close()
                self.due.set()
                await backoff.wait()

    async def publish_due(self) -> None:
        """Publish what waits, the oldest first; one that Kafka refuses stays and holds none back."""
        after: Due | None = None
        refused = 0
        while due := await self._database.run(unpublished, self._engine, after):
            after = due[-1]
            try:
                mine = await self._database.run(still_due, self._engine, due)
                sent = await asyncio.wait_for(self._send(mine), PUBLISH_S) if mine else []
                await self._database.run(mark_published, self._engine, sent)
            finally:
                await self._database.run(release_alerts, self._engine)
                self._new.difference_update(each.alert_id for each in due)
            refused += len(mine) - len(sent)
        if refused:
            raise BrokerError(f"expected Kafka to take every alert, it refused {refused}: they stay, and go again")

    async def _send(self, due: Sequence[Due]) -> list[str]:
        """Ids of the alerts that Kafka holds now.

        Of one that was tried before, by this recorder or by one that was killed, Kafka says whether it is there.
        """
        tried = [each for each in due if each.alert_id not in self._new]
        there = await self._outbox.published(tried) if tried else set()
        return [*there, *await self._outbox.send([each for each in due if each.alert_id not in there])]
