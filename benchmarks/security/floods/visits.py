"""A visitor who loads pages of the console, each on a fresh connection."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from benchmarks.harness.quantile import quantile
from benchmarks.security.floods.crowd import Address

PAGES: Final = ("/login", "/", "/health")
"""The login page, the fleet page with a session, and the health check."""
LOGIN: Final = "login"
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.1


def ask(
    address: Address, source: str, method: str, path: str, fields: dict[str, str], body: str = ""
) -> http.client.HTTPResponse:
    """Return the answer to one request on a fresh connection, read to its end."""
    connection = http.client.HTTPConnection(*address, timeout=_PATIENCE_S, source_address=(source, 0))
    try:
        connection.request(method, path, body=body or None, headers=fields | {"Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def post_login(address: Address, source: str, name: str, password: str) -> http.client.HTTPResponse:
    """Return the answer to a login."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(address, source, "POST", "/login", kind, urlencode({"name": name, "password": password}))


@dataclass
class Visits:
    """The load times of pages in seconds, by path, and the failures."""

    took_s: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def load(self, address: Address, source: str, path: str, cookie: str) -> None:
        """Load a page and record the time. Any status but 200 is a failure."""
        self._note(path, 200, lambda: ask(address, source, "GET", path, {"Cookie": cookie}).status)

    def log_in(self, address: Address, source: str, name: str, password: str) -> None:
        """Log in and record the time. Any status but 303 is a failure."""
        self._note(LOGIN, 303, lambda: post_login(address, source, name, password).status)

    def _note(self, what: str, expected: int, do: Callable[[], int]) -> None:
        begun_s = time.monotonic()
        try:
            if (status := do()) != expected:
                self.failures.append(f"{what}: {status}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{what}: {type(error).__name__}")
        self.took_s.setdefault(what, []).append(time.monotonic() - begun_s)

    def summary(self) -> dict[str, Any]:
        """Return counts, p99 and the slowest page, failed ones included."""
        every = [took for some in self.took_s.values() for took in some]
        return {
            "pages": len(every),
            "failed": len(self.failures),
            "failures": sorted(set(self.failures))[:8],
            "p99_s": round(quantile(every, 0.99) or 0.0, 3),
            "slowest_s": {path: round(max(some), 3) for path, some in self.took_s.items() if some},
            "max_s": round(max(every), 3),
        }


class Visitor:
    """A thread that repeats a round of visits."""

    def __init__(self, visit: Callable[[Visits], None], pause_s: float = _PAUSE_S) -> None:
        self.visits = Visits()
        self._visit = visit
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visitor")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._visit(self.visits)
            self._stop.wait(self._pause_s)

    def close(self) -> dict[str, Any]:
        """Return the summary after the current round."""
        self._stop.set()
        self._thread.join()
        return self.visits.summary()
