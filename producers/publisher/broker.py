"""The MQTT broker as all cameras of a process see it: its address, threads to connect in, one voice to complain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from schemas.identity import CameraId
from schemas.runtime.access import Login, Tls
from schemas.runtime.throttle import Throttle

_log = structlog.get_logger()
_AGAIN_S: Final = 60.0
_KINDS: Final = 100


class Broker:
    """Shared by the links of a process. `close` it when they are closed."""

    def __init__(
        self,
        host: str,
        port: int,
        threads: int,
        tls: Mapping[CameraId, Tls] | None = None,
        login: Login | None = None,
    ) -> None:
        """`tls` says how each camera connects; None is without TLS. `login` is of all of them."""
        self.host = host
        self.port = port
        self.tls = tls
        self.login = login
        self.connectors = ThreadPoolExecutor(threads, "mqtt-connect")
        self._told: Throttle[tuple[str, str]] = Throttle(_AGAIN_S, remembered=_KINDS)

    def complain(self, event: str, detail: str) -> None:
        """Log a problem once a minute, however many cameras have it and however often they try."""
        if self._told.take((event, detail), time.monotonic()):
            _log.warning(event, broker=f"{self.host}:{self.port}", detail=detail)

    def close(self) -> None:
        """Start no connection any more; one that is being made ends by its own time limit."""
        self.connectors.shutdown(wait=False, cancel_futures=True)
