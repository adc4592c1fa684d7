"""The process of every role: logs, metrics page, signals, one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry

from infra.process.certificates import Certificates, export_ends
from infra.process.log_lines import readable_line
from infra.process.metrics_server import role_registry, serve
from infra.process.tracing import begin_trace, traced
from schemas.runtime import trace
from schemas.runtime.health import Health
from schemas.runtime.memory import collect_seldom
from schemas.settings import address

Result = TypeVar("Result")
Entry = Callable[[CollectorRegistry, Health, asyncio.Event], Awaitable[Result]]


class _Lines:
    """Standard error, with one write for each line. On a full disk a line is lost: no role ends for its log."""

    def write(self, text: str) -> None:
        """Write the line at once."""
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), text.encode(errors="replace"))

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""


def configure_logs() -> None:
    """Log one line for each event on stderr: JSON, or words at a terminal."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            readable_line if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(_Lines()),  # type: ignore[arg-type]  # all that it uses of a file
        cache_logger_on_first_use=True,
    )


def run_role(
    role: str,
    metrics: str | None,
    entry: Entry[Result],
    *,
    name: str | None = None,
    tracing: str | None = None,
    tracing_share: float = 0.0,
    certificates: Certificates | None = None,
) -> Result:
    """Run `entry` until it returns; SIGTERM and SIGINT set its stop event, once.

    Processes of one `role` differ by `name`. `tracing` is the URL of an OpenTelemetry collector; of its own cameras'
    frames, `tracing_share` are traced. The ends of `certificates` are metrics.
    """
    configure_logs()
    registry = role_registry(role)
    export_ends(registry, certificates or {})
    health = Health()
    begin_trace(name or role)
    collect_seldom()
    server = serve(registry, health, address(metrics)) if metrics else None

    async def body() -> Result:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await entry(registry, health, stop)

    try:
        with traced(role, name or role, tracing, tracing_share):
            return asyncio.run(body())
    finally:
        trace.end()
        if server is not None:
            server.shutdown()
            server.server_close()
