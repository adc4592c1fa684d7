"""A receiver of Alertmanager's webhooks that keeps each document and the arrival of each camera's alert."""

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
        self.received: list[tuple[float, dict[str, Any]]] = []
        """Each document, with its arrival on the monotonic clock in seconds."""
        self.arrived_ms: dict[tuple[str, str], int] = {}
        """The first arrival in Unix milliseconds, by alert and camera. The camera is empty if the alert names none."""
        received, arrived_ms = self.received, self.arrived_ms

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                now_ms = time.time_ns() // 10**6
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.append((time.monotonic(), document))
                for labels in (alert["labels"] for alert in firing(document)):
                    arrived_ms.setdefault((labels["alertname"], labels.get("camera_id", "")), now_ms)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Write no log line: `received` holds the requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook")

    @property
    def url(self) -> str:
        """The URL that accepts alerts."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def alerts(self) -> list[dict[str, Any]]:
        """Return every alert that fires, as often as it was received."""
        return [alert for _, document in list(self.received) for alert in firing(document)]

    def names(self) -> list[str]:
        """Return the names of `alerts`."""
        return [alert["labels"]["alertname"] for alert in self.alerts()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def firing(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alerts of a document that fire."""
    return [alert for alert in document["alerts"] if alert["status"] == "firing"]
