"""A receiver of OpenTelemetry spans: a real HTTP server for OTLP that keeps them."""

from __future__ import annotations

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class ReceivedSpan(NamedTuple):
    """A span as it came."""

    service: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    frame: str
    incomplete: bool
    """Whether the frame had not left the role."""


class Collector:
    """An HTTP server on a loopback port, in a separate thread."""

    def __init__(self) -> None:
        received: list[ReceivedSpan] = []
        self.received = received
        """The spans of all requests, in the order of their arrival."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    received.extend(_spans_of(ExportTraceServiceRequest.FromString(body)))
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Write no log line: `received` holds the spans."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector")

    @property
    def url(self) -> str:
        """The base URL that accepts spans."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def traces(self) -> dict[str, list[ReceivedSpan]]:
        """Return the spans of each trace."""
        found: defaultdict[str, list[ReceivedSpan]] = defaultdict(list)
        for span in list(self.received):
            found[span.trace_id].append(span)
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _spans_of(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    found = []
    for part in request.resource_spans:
        process = {each.key: each.value.string_value for each in part.resource.attributes}
        for span in (span for scope in part.scope_spans for span in scope.spans):
            attributes = {each.key: each.value.string_value for each in span.attributes}
            found.append(
                ReceivedSpan(
                    process["service.name"],
                    process["service.instance.id"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    attributes["pointillist.frame"],
                    any(each.key == "pointillist.incomplete" for each in span.attributes),
                )
            )
    return found
