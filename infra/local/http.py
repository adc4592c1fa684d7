"""Plain HTTP requests to the roles and services of a system."""

from __future__ import annotations

from functools import cache
from typing import Final

import httpx2

READY_S: Final = 1.0
"""Seconds that a service has for its answer to `is_ready`."""


def get(url: str, timeout_s: float) -> httpx2.Response:
    """Return the answer at `url`, whatever its status. Raises httpx2.HTTPError if there is none in time."""
    return _client().get(url, timeout=timeout_s)


def is_ready(url: str) -> bool:
    """Return whether `url` answers 200."""
    try:
        return get(url, READY_S).status_code == 200
    except httpx2.HTTPError:
        return False


@cache
def _client() -> httpx2.Client:
    # No TLS here, so no certificates are loaded. A role has few places for connections: none is kept.
    return httpx2.Client(verify=False, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))
