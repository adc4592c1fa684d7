"""A recorder with its pages and without Kafka, visitors of all kinds, and the process that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry

from consumers.recorder import run_recorder
from consumers.settings import RecorderSettings
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import RECORDER_KEYS
from tests.waiting import until

HALF = b"GET /cameras HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def half_open(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have begun a request and say no more."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=30))
            with contextlib.suppress(OSError):  # closed meanwhile, for another one
                opened[-1].sendall(HALF)
        yield opened
    finally:
        for each in opened:
            each.close()


async def get(
    port: int, path: str, host: str = "127.0.0.1", wait_s: float = 20.0, tls: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """Status and body of one request under the name `host`."""
    async with asyncio.timeout(wait_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            return int(head.split()[1]), body
        finally:
            writer.close()
            await writer.wait_closed()


@dataclass
class Served:
    """A recorder without Kafka, with its pages."""

    port: int
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)

    def visits(self, outcome: str) -> float:
        """How many visitors fared so."""
        return self.registry.get_sample_value("pointillist_page_visits_total", {"outcome": outcome}) or 0.0

    def is_up(self) -> bool:
        """Whether the pages are served."""
        return bool(self.health.report()[1].get("pages", {}).get("ok"))


def pages_process() -> psutil.Process:
    """The process that serves the pages of this one's recorder."""
    (found,) = (child for child in psutil.Process().children() if "consumers.board.web" in child.cmdline())
    return found


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, tls: Path | None = None) -> AsyncIterator[Served]:
    """The pages of a recorder that has no Kafka; by HTTPS with the certificate in the folder `tls`."""
    made = Served(free_port())
    settings = RecorderSettings(
        kafka="127.0.0.1:1",
        database=f"sqlite:///{tmp_path}/records.sqlite",
        quarantine=str(tmp_path),
        http=("127.0.0.1", made.port),
        http_tls=tls,
        served_as=("door.example",),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(
        run_recorder(settings, RECORDER_KEYS, registry=made.registry, health=made.health, stop=stop)
    )
    try:
        await until(lambda: task.done() or made.is_up())
        yield made
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)
