"""Is there a broker at all? Asked once, when a person starts a role; a role that runs waits for its brokers itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from schemas.errors import BrokerError

RETRY_S = 0.2


def require_mqtt(address: tuple[str, int], wait_s: float) -> None:
    """Return when an MQTT 5 broker accepts a client there; `BrokerError` when none has after `wait_s` seconds."""
    from infra.local.mosquitto import answers_mqtt

    _require("an MQTT 5 broker", address, wait_s, lambda: answers_mqtt(*address))


def require_kafka(address: tuple[str, int], wait_s: float) -> None:
    """Return when a Kafka broker answers there; `BrokerError` when none has after `wait_s` seconds."""
    from infra.local.kafka import answers_kafka

    place = f"{address[0]}:{address[1]}"
    # Its own line for each try would bury ours.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        _require("a Kafka broker", address, wait_s, lambda: asyncio.run(answers_kafka(place)))
    finally:
        logging.getLogger("aiokafka").setLevel(logging.NOTSET)


def _require(what: str, address: tuple[str, int], wait_s: float, answers: Callable[[], bool]) -> None:
    end = time.monotonic() + wait_s
    while not answers():
        if time.monotonic() >= end:
            host, port = address
            raise BrokerError(f"expected {what} at {host}:{port}, none has answered for {wait_s:g} s")
        time.sleep(RETRY_S)
