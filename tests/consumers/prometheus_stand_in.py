"""A stand-in for Prometheus that answers correctly, slowly, with nonsense, with an error, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.harness.serving import serving


def rules_json(*alerts: dict[str, Any], quiet: str = "PointillistDiskFull") -> dict[str, Any]:
    """Return an answer of `/api/v1/rules`."""
    rules = [
        {"type": "alerting", "name": "PointillistRoleDown", "alerts": list(alerts)},
        {"type": "alerting", "name": quiet, "alerts": []},
    ]
    return {"status": "success", "data": {"groups": [{"name": "roles", "rules": rules}]}}


class PrometheusStandIn(ThreadingHTTPServer):
    """A server that reports two roles at one core each, the given alerts, and whether one role is up."""

    daemon_threads = True

    def __init__(self, mode: str, alerts: Sequence[dict[str, Any]], up: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode, self.alerts, self.up = mode, alerts, up
        self.queries: list[dict[str, list[str]]] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: PrometheusStandIn

    def do_GET(self) -> None:
        """Answer one query."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path.endswith("/query_range"):
            self.server.queries.append(query)
        if self.server.mode == "hangs":
            self.server.stopped.wait(30)
        elif self.server.mode == "drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.server.stopped.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
        else:
            is_deep = self.server.mode == "deep"
            answer = b"[" * 100_000 if is_deep else json.dumps(self._answer(url.path, query)).encode()
            self.send_response(422 if self.server.mode == "refuses" else 200)
            self.end_headers()
            self.wfile.write(b"<html>" if self.server.mode == "nonsense" else answer)

    def _answer(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        if path.endswith("/rules"):
            return rules_json(*self.server.alerts)
        if not path.endswith("/query_range"):
            series = [{"metric": {"role": "recorder"}, "value": [0, self.server.up]}]
            return {"status": "success", "data": {"resultType": "vector", "result": series}}
        times = range(int(query["start"][0]), int(query["end"][0]) + 1, int(query["step"][0]))
        expression = query["query"][0]
        labels = [{"role": "bridge"}, {"role": "recorder"}] if "by (role)" in expression else [{}]
        labels = [{"of": "answers"}, {"of": "pictures"}] if "by (of)" in expression else labels
        found = [{"metric": each, "values": [[at, "NaN" if at % 2 else "1.5"] for at in times]} for each in labels]
        return {"status": "success", "data": {"resultType": "matrix", "result": found}}

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def running_prometheus(
    mode: str = "well", *, alerts: Sequence[dict[str, Any]] = (), up: str = "1"
) -> Iterator[PrometheusStandIn]:
    """Run the stand-in for the block."""
    with serving(PrometheusStandIn(mode, alerts, up)) as server:
        try:
            yield server
        finally:
            server.stopped.set()
