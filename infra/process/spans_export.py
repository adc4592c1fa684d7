"""The export of spans to an OpenTelemetry collector: OTLP over HTTP, from a thread of its own.

This module imports the packages of the extra `tracing`: only a process that exports imports it. Their own variables
apply too, such as OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and OTEL_RESOURCE_ATTRIBUTES.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Lock
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from schemas.runtime.spans import Span
from schemas.runtime.throttle import Throttle

_log = structlog.get_logger()

_REQUEST_S: Final = 3.0
"""Deadline of one request to the collector, with its retries."""
_QUEUE: Final = 2_048
"""Maximum number of spans that wait for the collector; the oldest are dropped."""
_LOG_APART_S: Final = 600.0
"""Minimum seconds between two log lines about a collector that does not respond."""


class SpansExport:
    """The spans of one process on their way to a collector. Without a collector they are dropped; no caller waits."""

    def __init__(self, endpoint: str, role: str, name: str) -> None:
        """`endpoint` is the collector's base URL; `role` and `name` of the process are attributes of its spans."""
        # The packages log each failed attempt.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._lock = Lock()
        self._ids = _SpanIds()
        self._exporter = _QuietExporter(endpoint)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # the camera has decided
            resource=Resource.create({"service.name": f"pointillist-{role}", "service.instance.id": name}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=_QUEUE))
        self._tracer = self._provider.get_tracer("pointillist")

    def export(self, spans: Sequence[Span]) -> None:
        """Queue finished spans for the next request."""
        with self._lock:
            for span in spans:
                self._queue(span)

    def _queue(self, span: Span) -> None:
        self._ids.next = span
        around = Context()
        if span.parent_id:
            place = SpanContext(int(span.trace_id, 16), int(span.parent_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
            around = set_span_in_context(NonRecordingSpan(place), around)
        attributes = {"pointillist.frame": span.frame, "pointillist.camera": span.frame.rsplit("/", 2)[0]}
        queued = self._tracer.start_span(span.name, around, attributes=attributes, start_time=span.began_ns)
        if not span.complete:
            queued.set_attribute("pointillist.incomplete", True)
        queued.end(span.ended_ns)

    def flush(self) -> None:
        """Send the waiting spans now."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send the waiting spans. If the collector does not respond, return after one request's deadline."""
        self._exporter.closing = True
        self._provider.shutdown()


class _SpanIds(IdGenerator):
    """The ids that a span has already: the spans of other roles refer to them."""

    next: Span

    def generate_trace_id(self) -> int:
        return int(self.next.trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self.next.span_id, 16)


class _QuietExporter(SpanExporter):
    """An exporter that logs an outage of the collector once."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_REQUEST_S)
        self._lines: Throttle[str] = Throttle(_LOG_APART_S)
        self._failed = False
        self.closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.closing and self._failed:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        self._failed = result is not SpanExportResult.SUCCESS
        if self._failed and self._lines.try_acquire(self._endpoint, time.monotonic()):
            _log.warning("spans_dropped", endpoint=self._endpoint, reason="the collector does not accept them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the package leaves it out
