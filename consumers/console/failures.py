"""Log of defects in page handlers, with traceback: once a minute for each place in the code."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request

EVERY_S: Final = 60.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Seen:
    """One kind of failure: the time of its last log line, and failures since then."""

    logged_s: float
    since: int = 0


class Failures:
    """The kinds of failures so far. A kind is an error's type and the line that raised it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._seen: dict[str, _Seen] = {}

    def log(self, request: Request, error: Exception) -> None:
        """Log a failure, unless its kind was logged in the last minute."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        kind, now_s = f"{type(error).__name__} {place}", self._clock_s()
        seen = self._seen.get(kind)
        if seen is not None and now_s - seen.logged_s < EVERY_S:
            seen.since += 1
            return
        unlogged = seen.since if seen is not None else 0
        self._seen[kind] = _Seen(now_s)
        path: str = request.scope["path"]
        log.error("request_failed", method=request.method, path=path[:200], unlogged=unlogged, exc_info=error)
