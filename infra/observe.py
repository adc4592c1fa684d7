"""`/metrics` and `/healthz` of a role, served by a thread of its own so that a busy role still answers."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from threading import Thread

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import ConfigError
from schemas.health import Health
from schemas.metrics import BUILD_INFO


def software_version() -> str:
    """The installed version of the project."""
    try:
        return version("pointillist")
    except PackageNotFoundError:
        return "unknown"


def role_registry(role: str) -> CollectorRegistry:
    """A registry with what every role reports: its build, its process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    BUILD_INFO.on(registry).labels(role=role, version=software_version()).set(1)
    return registry


def serve(registry: CollectorRegistry, health: Health, address: tuple[str, int]) -> ThreadingHTTPServer:
    """Answer on `address` from a daemon thread; `ConfigError` when it cannot be bound."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/metrics"):
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
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
            """Scrapes are not worth a line."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {address[0]}:{address[1]}: {error.strerror}") from None
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
