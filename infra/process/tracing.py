"""Tracing of a role: stamps of each frame in a folder, and spans of sampled frames to an OpenTelemetry collector."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from infra.state_folder.environment import Environment
from schemas.errors import ConfigError
from schemas.runtime import trace

_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def begin_trace(name: str) -> None:
    """Trace each frame's path if `POINTILLIST_TRACE` names a folder; `ConfigError` when that cannot be written."""
    folder = Environment().trace
    if folder is not None:
        try:
            trace.begin(folder, name)
        except OSError as error:
            raise ConfigError(
                f"POINTILLIST_TRACE: expected a writable folder, got {folder}: {error.strerror}. Choose another folder."
            ) from None


@contextmanager
def traced(role: str, name: str, endpoint: str | None, share: float) -> Iterator[None]:
    """Export the spans of sampled frames to `endpoint` while the context is open; None exports none.

    The service is called by `role`, and its instance by `name`.

    `share` of the frames of this process's own cameras is sampled. Raises `ConfigError` without the packages for it.
    """
    if endpoint is None:
        yield
        return
    require_exporter()
    from infra.process.spans_export import SpansExport

    try:
        exporter = SpansExport(endpoint, role, f"{name}@{socket.gethostname()}:{os.getpid()}")
    except ValueError as error:
        raise ConfigError(
            f"OTEL_…: expected variables that OpenTelemetry accepts, got {error}. Correct them."
        ) from None
    trace.begin_spans(exporter.export, share)
    try:
        yield
    finally:
        trace.end_spans()
        exporter.close()


def require_exporter() -> None:
    """Raise `ConfigError` if the packages that export spans are not installed."""
    try:
        found = all(find_spec(name) is not None for name in _PACKAGES)
    except ModuleNotFoundError:  # not even the package around it
        found = False
    if not found:
        raise ConfigError(
            "OpenTelemetry is missing: expected its packages for tracing. Install pointillist[tracing], or remove "
            "tracing."
        )
