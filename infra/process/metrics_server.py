"""`/metrics` and `/healthz` of a role, served by a thread of its own: a busy role still answers."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from socket import AF_INET6, SHUT_RDWR, socket
from threading import Lock, Thread
from typing import Final
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from schemas.errors import ConfigError
from schemas.metrics import BUILD_INFO
from schemas.runtime.health import Health

MAX_CONNECTIONS: Final = 32
REQUEST_S: Final = 5.0
"""Seconds that a connection may stay silent."""


def software_version() -> str:
    """Return the installed version of the project."""
    try:
        return version("pointillist")
    except PackageNotFoundError:
        return "unknown"


def role_registry(role: str) -> CollectorRegistry:
    """Return a registry with the metrics of every role: its build and its process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    BUILD_INFO.on(registry).labels(role=role, version=software_version()).set(1)
    return registry


class _Server(ThreadingHTTPServer):
    """A server with one thread for each connection, and a bound on them: beyond it, the oldest connection is closed.

    Silent connections must neither use up a role's descriptors nor keep a scrape out.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = Lock()
        self._open: dict[socket, None] = {}
        if ":" in address[0]:
            self.address_family = AF_INET6
        super().__init__(address, handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        """Answer in a thread of its own."""
        assert isinstance(request, socket)
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                with suppress(OSError):
                    next(iter(self._open)).shutdown(SHUT_RDWR)
                del self._open[next(iter(self._open))]
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket | tuple[bytes, socket]) -> None:
        """Remove a connection that was answered or abandoned."""
        assert isinstance(request, socket)
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log our own errors, but no stranger's broken connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # it only shows them


def serve(registry: CollectorRegistry, health: Health, address: tuple[str, int]) -> ThreadingHTTPServer:
    """Answer on `address` from a daemon thread; `ConfigError` when it cannot be bound."""

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            if self.path.startswith("/metrics"):
                # Only OpenMetrics has exemplars: a client asks for that format in its Accept header.
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                names = parse_qs(urlsplit(self.path).query).get("name[]")
                chosen = registry.restricted_registry(names) if names else registry
                self._answer(200, content_type, encode(chosen))
            elif self.path.startswith("/healthz"):
                well, conditions = health.report()
                body = json.dumps({"ok": well, "conditions": conditions}).encode()
                self._answer(200 if well else 503, "application/json", body)
            else:
                self._answer(404, "text/plain", b"expected /metrics or /healthz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Log no scrapes."""

    try:
        server = _Server(address, Handler)
    except OSError as error:
        raise ConfigError(
            f"metrics: expected a free address, got {address[0]}:{address[1]}: {error.strerror}. Choose another one."
        ) from None
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
