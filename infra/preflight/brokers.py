"""Preflight checks of brokers when a person starts a role; a running role waits for its brokers itself."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from infra.local.tls import await_kafka_answer, tls_connection
from schemas.errors import BrokerError
from schemas.settings import address as parse
from schemas.transport.access import KafkaAccess, KafkaAddress, Login, Tls, kafka_options, tls_refusal

RETRY_S = 0.2
_ANSWER_S: Final = 2.0


class NotReadyError(OSError):
    """A server answers that it takes no connection now: its reason. Waiting may help."""


class RefusedError(Exception):
    """A broker answers and rejects us: waiting does not help."""


class RejectionError(BrokerError):
    """A broker does not accept this login: another one may be accepted."""


def require_mqtt(address: tuple[str, int], wait_s: float, tls: Tls | None = None, login: Login | None = None) -> None:
    """Return when an MQTT 5 broker accepts a client there.

    Raises `BrokerError` when none has after `wait_s` seconds, and at once when one answers and rejects us.
    """
    from infra.local.mosquitto import mqtt_refusal

    def accepts() -> bool:
        try:
            why = mqtt_refusal(*address, _ANSWER_S, tls, login)
        except OSError:
            return False
        if why is not None:
            raise RefusedError(why)
        return True

    require("MQTT broker", address, wait_s, accepts)


def require_kafka(address: KafkaAddress, wait_s: float) -> None:
    """Return when a Kafka broker answers there.

    Raises `BrokerError` when none has after `wait_s` seconds, and at once when one answers and rejects us.
    """
    from infra.local.kafka import answers_kafka

    places = [parse(place) for place in str(address).split(",")]

    def answers() -> bool:
        if isinstance(address, KafkaAccess):
            _look_for_refusal(places, address.tls)
            if address.login is not None and asyncio.run(_password_refused(address, places)):
                raise RefusedError("wrong user or password")
        return asyncio.run(answers_kafka(address))

    with quiet_kafka():
        require("Kafka broker", places[0], wait_s, answers)


@contextmanager
def quiet_kafka() -> Iterator[None]:
    """Keep aiokafka from logging: a line for each attempt would bury the command's own."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger("aiokafka").setLevel(logging.NOTSET)


def _look_for_refusal(places: list[tuple[str, int]], tls: Tls) -> None:
    """Raise `RefusedError` when one of the servers rejects us, or we do not trust it."""
    context = tls.context()
    for place in places:
        try:
            with tls_connection(place, context, _ANSWER_S) as link:
                await_kafka_answer(link)
        except ssl.SSLError as error:
            why = tls_refusal(error)
            if why is not None and not isinstance(error, ssl.SSLEOFError):
                raise RefusedError(why) from None
        except OSError:
            continue


async def _password_refused(address: KafkaAccess, places: list[tuple[str, int]]) -> bool:
    """Return whether a server rejects this user or this password."""
    from aiokafka.conn import AIOKafkaConnection
    from aiokafka.errors import AuthenticationFailedError, KafkaError, SaslAuthenticationFailed

    options = kafka_options(address)
    del options["bootstrap_servers"]
    for host, port in places:
        link = AIOKafkaConnection(host, port, client_id="ready", request_timeout_ms=int(_ANSWER_S * 1000), **options)
        refused = False
        try:
            await link.connect()
        except (AuthenticationFailedError, SaslAuthenticationFailed):
            refused = True
        except (KafkaError, OSError, TimeoutError):
            link.close()
            continue
        # A transport that is still closing when the loop ends would never be closed.
        with suppress(TimeoutError):
            await asyncio.wait_for(link.close(), _ANSWER_S)
        if refused:
            return True
    return False


def require(what: str, address: tuple[str, int], wait_s: float, answers: Callable[[], bool]) -> None:
    """Call `answers` until it returns, for `wait_s` seconds; it raises `RefusedError` when waiting does not help.

    Raises `BrokerError` with what was expected and where.
    """
    end = time.monotonic() + wait_s
    host, port = address
    reason = ""
    while True:
        try:
            if answers():
                return
            reason = ""
        except NotReadyError as why:
            reason = str(why)
        except RefusedError as why:
            raise RejectionError(
                f"{what} at {host}:{port}: expected an accepted connection, got {why}. Correct the address, the "
                "login or the certificate."
            ) from None
        if time.monotonic() >= end:
            if reason:
                raise BrokerError(
                    f"{what} at {host}:{port}: expected an accepted connection within {wait_s:g} s, got the answer: "
                    f"{reason}. Correct the server, or try again."
                )
            raise BrokerError(
                f"{what} at {host}:{port}: expected a response within {wait_s:g} s, got none. Start it, or "
                "correct the address."
            )
        time.sleep(RETRY_S)
