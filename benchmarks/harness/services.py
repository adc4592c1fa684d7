"""Brokers and databases that run during a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from infra.local.service import Service

S = TypeVar("S", bound=Service)


@contextmanager
def started(service: S) -> Iterator[S]:
    """Start a service, and stop it after the block. Raises BrokerError if it does not start."""
    try:
        service.start()
        yield service
    finally:
        service.stop()
