"""A receiver of OpenTelemetry spans: a real HTTP server for OTLP that keeps them."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.harness.receiver import Receiver


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


class Collector(Receiver):
    """The receiver; `url` is the base URL that accepts spans."""

    def __init__(self) -> None:
        super().__init__("/v1/traces")
        self.received: list[ReceivedSpan] = []
        """The spans of all requests, in the order of their arrival."""

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        self.received.extend(_spans_of(ExportTraceServiceRequest.FromString(body)))

    def traces(self) -> dict[str, list[ReceivedSpan]]:
        """Return the spans of each trace."""
        found: defaultdict[str, list[ReceivedSpan]] = defaultdict(list)
        for span in list(self.received):
            found[span.trace_id].append(span)
        return found


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
