"""The export of spans to a collector, and roles without a collector or without the packages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from benchmarks.harness.collector import Collector
from infra.process import spans_export
from infra.process.spans_export import SpansExport
from infra.process.tracing import require_exporter, traced
from schemas.errors import ConfigError
from schemas.identity import CameraId, Identity
from schemas.runtime import trace
from schemas.runtime.spans import root

FRAME = Identity(CameraId("hall/door"), 0xAB, 7)
TRACE = root(str(FRAME))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(spans_export, "_REQUEST_S", 60.0)
    with Collector() as running:
        yield running


def pass_frame() -> None:
    """Stamp one frame as a bridge does."""
    trace.follow("bridge", FRAME, TRACE._replace(sampled=True).header())
    for at_ns, what in ((1_000, "received"), (2_000, "sent"), (5_000, "stored")):
        trace.stamp(what, FRAME, at_ns=at_ns)


def test_a_collector_gets_the_spans_with_their_ids_and_times(collector: Collector) -> None:
    with traced("bridge", "bridge-x2k5q", collector.url + "/", 0.0):
        pass_frame()
    whole, wait, publish = collector.received
    assert (whole.service, whole.frame) == ("pointillist-bridge", str(FRAME))
    assert whole.instance == f"bridge-x2k5q@{socket.gethostname()}:{os.getpid()}"
    assert (whole.name, whole.trace_id, whole.parent_id) == ("bridge", TRACE.trace_id, TRACE.span_id)
    assert (whole.began_ns, whole.ended_ns, whole.incomplete) == (1_000, 5_000, False)
    assert (wait.name, wait.parent_id, wait.began_ns, wait.ended_ns) == ("wait", whole.span_id, 1_000, 2_000)
    assert (publish.name, publish.parent_id, publish.began_ns, publish.ended_ns) == (
        "publish",
        whole.span_id,
        2_000,
        5_000,
    )


def test_the_camera_starts_the_trace(collector: Collector) -> None:
    with traced("fleet", "fleet", collector.url, 1.0):
        assert trace.sample(FRAME)
        trace.stamp("captured", FRAME, at_ns=1_000)
    (span,) = collector.received
    assert (span.name, span.trace_id, span.span_id, span.parent_id) == ("camera", TRACE.trace_id, TRACE.span_id, "")
    assert span.incomplete  # the frame was never confirmed


def test_an_unreachable_collector_is_one_log_line_and_ends_no_role(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spans_export, "_REQUEST_S", 0.2)
    exporter = SpansExport("http://127.0.0.1:1", "bridge", "bridge")
    trace.begin_spans(exporter.export)
    try:
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                pass_frame()
                exporter.flush()
            pass_frame()
            trace.end_spans()
            exporter.close()
    finally:
        trace.end_spans()
    assert [line["event"] for line in lines] == ["spans_dropped"]
    assert caplog.records == []  # the packages log nothing themselves


def test_a_role_without_the_option_does_not_import_opentelemetry() -> None:
    program = """
import sys
from infra.process.role import run_role
from producers.bridge import run_bridge
from producers.fleet.real import run_camera

async def entry(registry, health, stop):
    return [name for name in sys.modules if "opentelemetry" in name]

assert run_role("bridge", None, entry) == []
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_missing_packages_are_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("infra.process.tracing.find_spec", missing)
    with pytest.raises(ConfigError, match=r"OpenTelemetry is missing: .* Install pointillist\[tracing\]"):
        require_exporter()
    monkeypatch.setattr("infra.process.tracing.find_spec", lambda _: None)
    with (
        pytest.raises(ConfigError, match="OpenTelemetry is missing"),
        traced("bridge", "bridge", "http://127.0.0.1:1", 0.0),
    ):
        pass
