"""The MQTT broker of all cameras of a process: its address, a limit of connections at once, and a throttled log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog

from schemas.identity import CameraId
from schemas.runtime.throttle import Throttle
from schemas.transport.access import Login, Tls

_log = structlog.get_logger()
_AGAIN_S: Final = 60.0
_KINDS: Final = 100


class Broker:
    """The broker's address and limits, shared by the links of a process. At most `at_once` links connect at a time: the
    broker's queue of connections is limited."""

    def __init__(
        self,
        host: str,
        port: int,
        at_once: int,
        tls: Mapping[CameraId, Tls] | None = None,
        login: Login | None = None,
    ) -> None:
        """`tls` holds the certificates of each camera; None is without TLS. All cameras share `login`."""
        self.host = host
        self.port = port
        self.tls = tls
        self.login = login
        self.dialling = asyncio.Semaphore(at_once)
        """A semaphore that each link holds while it connects."""
        self._logged: Throttle[tuple[str, str]] = Throttle(_AGAIN_S, remembered=_KINDS)

    def log_problem(self, event: str, reason: str) -> None:
        """Log a problem once a minute for all cameras together."""
        if self._logged.try_acquire((event, reason), time.monotonic()):
            _log.warning(event, broker=f"{self.host}:{self.port}", reason=reason)
