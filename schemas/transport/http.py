"""HTTP requests to the services of a system."""

from __future__ import annotations

from typing import Final

DIRECT: Final = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
"""Mounts of an httpx2 client: no proxy of the environment for loopback, where a proxy would reach itself."""
