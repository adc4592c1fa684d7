"""The ends of the certificates that the brokers and the database present to the monitor.

A server presents its former certificate until a restart, however new the file is. Therefore the end comes from a TLS
connection and not from the file.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from consumers.database.engine import client_settings, database_url
from infra.local.tls import await_kafka_answer, postgresql_tls, tls_connection
from infra.monitor.mosquitto import MosquittoMetrics
from infra.monitor.settings import MonitorSettings
from schemas.errors import PointillistError
from schemas.runtime.throttle import Throttle
from schemas.settings import address
from schemas.transport.access import EXPIRED, KafkaAccess, MqttAccess, Tls, certificate_end

MQTT: Final = "mqtt_server"
EVERY_S: Final = 60.0
"""Seconds between two readings."""
SOON_S: Final = 4 * 86_400.0
"""Seconds before the end from which the MQTT connection is opened again: mosquitto may present a new certificate."""
_RECONNECT_EVERY_S: Final = 3600.0
_ANSWER_S: Final = 2.0
_TLS_MODES: Final = ("require", "verify-ca", "verify-full")


class ServerCertificates:
    """The ends of the servers' certificates in Unix seconds; NaN until a server has answered.

    A server that does not answer keeps its last end. A certificate that has ended is refused before its end can be
    read: without an earlier reading its end is the time of the first refusal.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        """`settings` are resolved: their servers without TLS have no end."""
        self._servers: dict[str, Callable[[], float]] = {}
        self._ends: dict[str, float] = {}
        self._throttle: Throttle[str] = Throttle(_RECONNECT_EVERY_S, remembered=1)
        kafka, mqtt, database = settings.kafka, settings.broker, database_tls(settings.database)
        if isinstance(kafka, KafkaAccess):
            self._servers["kafka_server"] = lambda: kafka_end(kafka)
        if database is not None:
            url, tls = database
            self._servers["database_server"] = lambda: postgresql_end(url, tls)
        self._mqtt = mqtt if mqtt.tls is not None else None
        self._ends = dict.fromkeys([*self._servers, *([MQTT] if self._mqtt is not None else [])], math.nan)

    @property
    def ends(self) -> dict[str, Callable[[], float]]:
        """Functions that return the last known ends, by purpose: mqtt_server, kafka_server, database_server."""
        return {purpose: lambda purpose=purpose: self._ends[purpose] for purpose in self._ends}  # type: ignore[misc]

    async def measure(self, mosquitto: MosquittoMetrics) -> None:
        """Read the ends again."""
        for purpose, read in self._servers.items():
            await self._read(purpose, read)
        broker = self._mqtt
        if broker is None:
            return
        if (end := mosquitto.certificate_end) is not None:
            self._ends[MQTT] = end
            if end - time.time() < SOON_S and self._throttle.try_acquire("reconnect", time.monotonic()):
                await asyncio.to_thread(mosquitto.reconnect)
        elif math.isnan(self._ends[MQTT]):
            await self._read(MQTT, lambda: mqtt_end(broker))

    async def _read(self, purpose: str, read: Callable[[], float]) -> None:
        try:
            self._ends[purpose] = await asyncio.to_thread(read)
        except (OSError, PointillistError) as error:
            # Other metrics and alerts cover a server that does not answer.
            if _has_expired(error) and not self._ends[purpose] < time.time():  # NaN is not less
                self._ends[purpose] = time.time()


def mqtt_end(broker: MqttAccess) -> float:
    """Return the end of an MQTT broker's certificate; OSError if it does not answer. The connection ends before its
    CONNECT."""
    assert broker.tls is not None
    with tls_connection(broker.address, broker.tls.context(), _ANSWER_S) as link:
        return certificate_end(link)


def kafka_end(kafka: KafkaAccess) -> float:
    """Return the earliest end of the certificates of Kafka's nodes that answer.

    Raises OSError if none does, or if the certificate of one has ended.
    """
    context, ends, failure = kafka.tls.context(), [], OSError("no address of Kafka")
    for place in kafka.bootstrap.split(","):
        try:
            with tls_connection(address(place), context, _ANSWER_S) as link:
                ends.append(certificate_end(link))
                await_kafka_answer(link)
        except OSError as error:
            if _has_expired(error):
                raise
            failure = error
    if not ends:
        raise failure
    return min(ends)


def postgresql_end(url: URL, tls: Tls) -> float:
    """Return the end of PostgreSQL's certificate; OSError if it does not answer or has no TLS.

    The connection ends before a login.
    """
    settings = client_settings(url)
    context = tls.context()
    # `sslmode=verify-ca` trusts a server by any name.
    context.check_hostname = False
    with postgresql_tls((settings["host"], int(settings["port"])), context, _ANSWER_S) as link:
        return certificate_end(link)


def database_tls(text: str) -> tuple[URL, Tls] | None:
    """Return the URL and the trusted authorities of a PostgreSQL with TLS; None for any other database.

    Without `sslrootcert`, libpq trusts any server, and there is nothing to verify a certificate by.
    """
    try:
        url = database_url(text)
    except PointillistError:
        return None
    if url.get_backend_name() != "postgresql":
        return None
    settings = client_settings(url)
    if settings["host"].startswith("/") or settings["sslmode"] not in _TLS_MODES:
        return None
    try:
        return url, Tls(Path(settings["sslrootcert"]).read_text())
    except (OSError, ValueError, KeyError):
        return None


def _has_expired(error: Exception) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == EXPIRED
