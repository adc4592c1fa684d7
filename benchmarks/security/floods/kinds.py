"""The ten floods: the requests that their connections send."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from benchmarks.security.floods.crowd import Address, Habit

STRANGER: Final = "stranger"
VIEWER: Final = "viewer"
SOURCE: Final = "127.0.0.9"
"""The address of every flood but one."""
SOURCES: Final = tuple(f"127.0.1.{number}" for number in range(1, 251))
"""The addresses of the flood from many sources."""
_PAGES: Final = ("/fleet/live", "/live", "/camera/local/cam-0/live")


@dataclass(frozen=True)
class Target:
    """A console and the session of one of its viewers."""

    address: Address
    cookie: str
    now_ms: int

    def request(
        self, path: str, *fields: str, method: str = "GET", session: bool = False, body: str = "", version: str = "1.1"
    ) -> bytes:
        """Return a request with these header fields. `session` adds the viewer's cookie."""
        lines = [f"{method} {path} HTTP/{version}", f"Host: {self.address[0]}:{self.address[1]}", *fields]
        if session:
            lines.append(f"Cookie: {self.cookie}")
        if body:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", body]).encode()

    def month(self, kind: str) -> str:
        """Return the path of the longest export that is allowed."""
        return f"/api/v1/export/verdicts.{kind}?since_ms={self.now_ms - 2_678_400_000}&until_ms={self.now_ms}"


@dataclass(frozen=True)
class Flood:
    """One flood."""

    name: str
    who: str
    what: str
    habit: Callable[[Target], Habit]
    held: int = 600
    """Connections open at once."""
    per_second: float = 400.0
    """Connections opened per second, at most."""
    sources: tuple[str, ...] = (SOURCE,)


def _idle_heads(to: Target) -> Habit:
    return Habit((to.request("/login")[:-2],))


def _unsent_bodies(to: Target) -> Habit:
    announced = "Content-Length: 1000"
    form = "Content-Type: application/x-www-form-urlencoded"
    paths = ("/static/live", "/static/export", "/login")
    return Habit(tuple(to.request(path, announced, form, method="POST") for path in paths))


def _viewers_unsent_bodies(to: Target) -> Habit:
    announced = "Content-Length: 1000"
    streams = tuple(to.request(path, announced, session=True) for path in _PAGES)
    form = to.request(
        "/logout", announced, "Content-Type: application/x-www-form-urlencoded", method="POST", session=True
    )
    return Habit((*streams, to.request(to.month("csv"), announced, session=True), form))


def _slow_readers(to: Target) -> Habit:
    return Habit(
        tuple(to.request(f"/static/{name}") for name in ("htmx.min.js", "console.css")), reads=False, lasts_s=3.0
    )


def _viewers_slow_readers(to: Target) -> Habit:
    streams = tuple(to.request(path, session=True) for path in _PAGES)
    return Habit((*streams, *(to.request(to.month("csv"), session=True) for _ in _PAGES)), reads=False, lasts_s=15.0)


def _streams(to: Target) -> Habit:
    return Habit(tuple(to.request(path, session=True) for path in _PAGES))


def _exports(to: Target) -> Habit:
    return Habit(tuple(to.request(to.month(kind), "Connection: close", session=True) for kind in ("csv", "parquet")))


def _large_bodies(to: Target) -> Habit:
    announced = f"Content-Length: {2**30}"
    form = "Content-Type: application/x-www-form-urlencoded"
    paths = ("/login", "/static/live", "/health")
    return Habit(tuple(to.request(path, announced, form, method="POST") for path in paths), body_bytes=2**22)


def _viewers_large_bodies(to: Target) -> Habit:
    announced = f"Content-Length: {2**30}"
    kind = "Content-Type: application/json"
    path = "/api/v1/cameras/local/cam-0/command"
    return Habit((to.request(path, announced, kind, method="POST", session=True),), body_bytes=2**22)


def _http_1_0(to: Target) -> Habit:
    whole = to.request("/login", version="1.0")
    announced = to.request("/login", "Content-Length: 1000", "Connection: keep-alive", method="POST", version="1.0")
    return Habit((whole, whole[:-2], announced))


def _logins(to: Target) -> Habit:
    bodies = tuple(urlencode({"name": f"guess{number}", "password": "not this one"}) for number in range(100))
    return Habit(tuple(to.request("/login", "Connection: close", method="POST", body=body) for body in bodies))


def _basic(to: Target) -> Habit:
    guesses = (base64.b64encode(f"guess{number}:not this one".encode()).decode() for number in range(100))
    requests = (to.request("/api/v1/cameras", f"Authorization: Basic {guess}") for guess in guesses)
    return Habit(tuple(requests), leaves=True)


FLOODS: Final = (
    Flood("idle heads", STRANGER, "begins a request and sends no more", _idle_heads),
    Flood("unsent bodies", STRANGER, "announces a form to three open paths and sends none", _unsent_bodies),
    Flood(
        "unsent bodies", VIEWER, "announces a body to streams, an export and a form, and sends none",
        _viewers_unsent_bodies,
    ),
    Flood("slow readers", STRANGER, "asks for static files and reads nothing", _slow_readers),
    Flood("slow readers", VIEWER, "opens streams and exports and reads nothing", _viewers_slow_readers),
    Flood("streams", VIEWER, "opens streams and reads them", _streams),
    Flood("exports", VIEWER, "exports 31 days again and again", _exports, held=250, per_second=250.0),
    Flood(
        "large bodies", STRANGER, "announces 1 GiB and sends 4 MiB", _large_bodies, held=100, per_second=50.0
    ),
    Flood(
        "large bodies", VIEWER, "announces 1 GiB of JSON and sends 4 MiB", _viewers_large_bodies, held=100,
        per_second=50.0,
    ),
    Flood("many addresses", STRANGER, "idle heads from 250 addresses", _idle_heads, sources=SOURCES),
    Flood("HTTP/1.0", STRANGER, "whole requests, half heads, unsent bodies by HTTP/1.0", _http_1_0, per_second=200.0),
    Flood("logins", STRANGER, "tries passwords at the login page", _logins, held=200, per_second=200.0),
    Flood("Basic", STRANGER, "tries passwords by HTTP Basic and leaves at once", _basic, held=200, per_second=200.0),
)  # fmt: skip
