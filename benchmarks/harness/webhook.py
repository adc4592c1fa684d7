"""A receiver of Alertmanager's webhooks: a real HTTP server that keeps the messages."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Webhook:
    """An HTTP server on a loopback port, in a separate thread."""

    def __init__(self) -> None:
        received: list[tuple[float, dict[str, Any]]] = []
        self.received = received
        """The Unix time of each message, in seconds, and the message."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at_s = time.time()
                received.append((at_s, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Write no log line: `received` holds the messages."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook")

    @property
    def url(self) -> str:
        """The URL that accepts alerts."""
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the firing alerts of all messages, with repetitions."""
        return [alert for _, alert in self._firing()]

    def names(self) -> list[str]:
        """Return the names of these alerts."""
        return [alert["labels"]["alertname"] for alert in self.alerts()]

    def arrived_s(self) -> dict[tuple[str, str], float]:
        """Return the first arrival of each alert and camera. The camera is empty if the alert names none."""
        found: dict[tuple[str, str], float] = {}
        for at_s, alert in self._firing():
            found.setdefault((alert["labels"]["alertname"], alert["labels"].get("camera_id", "")), at_s)
        return found

    def _firing(self) -> list[tuple[float, dict[str, Any]]]:
        messages = list(self.received)
        return [(at_s, alert) for at_s, each in messages for alert in each["alerts"] if alert["status"] == "firing"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
