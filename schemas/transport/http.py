"""HTTP requests to the services of a system."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from typing import Final

DIRECT: Final = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
"""Mounts of an httpx2 client: no proxy of the environment for loopback, where a proxy would reach itself."""


def client_tls(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return a client's TLS context that trusts the authorities of a file, or without one those of the system.

    Raises OSError for a file that cannot be read.
    """
    return _system_tls() if ca_file is None else ssl.create_default_context(cafile=ca_file)


@cache
def _system_tls() -> ssl.SSLContext:
    # All clients share the authorities, so that they are loaded once.
    return ssl.create_default_context()
