"""The MQTT broker as all cameras of a process see it: its address, threads to connect in, one voice to complain."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

_log = structlog.get_logger()
_AGAIN_S: Final = 60.0
_KINDS: Final = 100


class Broker:
    """Shared by the links of a process. `close` it when they are closed."""

    def __init__(self, host: str, port: int, threads: int) -> None:
        self.host = host
        self.port = port
        self.connectors = ThreadPoolExecutor(threads, "mqtt-connect")
        self._told: dict[tuple[str, str], float] = {}

    def complain(self, event: str, detail: str) -> None:
        """Log a problem once a minute, however many cameras have it and however often they try."""
        now = time.monotonic()
        last = self._told.get((event, detail))
        if last is None or now - last >= _AGAIN_S:
            if len(self._told) >= _KINDS:
                self._told.clear()
            self._told[event, detail] = now
            _log.warning(event, broker=f"{self.host}:{self.port}", detail=detail)

    def close(self) -> None:
        """Start no connection any more; one that is being made ends by its own time limit."""
        self.connectors.shutdown(wait=False, cancel_futures=True)
