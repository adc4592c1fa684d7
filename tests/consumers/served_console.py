"""A console with its web server and without Kafka, and raw connections to it from any loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import httpx2
from prometheus_client import CollectorRegistry

from consumers.console.jobs.jobs import Launch
from consumers.console.role import run_console
from consumers.console.settings import ConsoleSettings
from infra.local.ports import free_port
from schemas.runtime.health import Health
from tests.consumers.console_rig import CONSOLE_KEYS
from tests.consumers.jobs_rig import launcher
from tests.waiting import PATIENCE_S, until


@contextlib.asynccontextmanager
async def serving(folder: Path, launch: Launch | None = None, **changed: object) -> AsyncIterator[tuple[int, Health]]:
    """Serve a console without Kafka and without a database. Yield its port and its health.

    `changed` are its settings; `launch` starts its jobs.
    """
    assert changed.keys() <= ConsoleSettings.model_fields.keys()
    port, health, stop = free_port(), Health(), asyncio.Event()
    settings = ConsoleSettings(
        kafka="127.0.0.1:1",
        database=f"sqlite:///{folder}/none.sqlite",
        quarantine=str(folder / "quarantine"),
        store=f"sqlite:///{folder}/console.sqlite",
        http=("127.0.0.1", port),
        owner_file=folder / "owner.token",
    ).model_copy(update=changed)
    task = asyncio.create_task(
        run_console(
            settings,
            CONSOLE_KEYS,
            registry=CollectorRegistry(),
            health=health,
            stop=stop,
            launch=launch or launcher("hangs"),
        )
    )
    try:
        await until(lambda: task.done() or health.report()[1].get("pages", {}).get("ok"))
        yield port, health
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def get(
    port: int, path: str, host: str = "127.0.0.1", wait_s: float = PATIENCE_S, tls: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """Request `path` from the host name `host`. Return the status and the body."""
    async with asyncio.timeout(wait_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            status, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            return int(status.split()[1]), body
        finally:
            writer.close()
            await writer.wait_closed()


def client() -> httpx2.AsyncClient:
    """Return a client without authorities, whose loading takes longer than most requests."""
    return httpx2.AsyncClient(timeout=PATIENCE_S, verify=False)


async def log_in(port: int, name: str, password: str) -> str:
    """Log in. Return the cookie of the new session."""
    async with client() as visitor:
        answer = await visitor.post(
            f"http://127.0.0.1:{port}/login",
            data={"name": name, "password": password},
            headers={"host": "127.0.0.1"},
        )
    assert answer.status_code == 303
    return str(answer.headers["set-cookie"]).partition(";")[0]


def head(path: str, *fields: str, method: str = "GET", cookie: str = "") -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields, *([f"Cookie: {cookie}"] if cookie else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def form(path: str, cookie: str = "", **fields: str) -> bytes:
    """Return a whole request that posts a form."""
    body = urlencode(fields)
    kind = "Content-Type: application/x-www-form-urlencoded"
    return head(path, kind, f"Content-Length: {len(body)}", method="POST", cookie=cookie) + body.encode()


class Connection:
    """A connection to the console."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Queue bytes to be sent."""
        self.writer.write(data)

    async def status(self) -> int:
        """Read the head of the next answer. Return its status."""
        answer = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        return int(answer.split()[1])

    async def has_ended(self) -> bool:
        """Wait until the server closes the connection. Return True; raise TimeoutError after `PATIENCE_S`."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(2**16):
                    pass
        return True

    def is_open(self) -> bool:
        """Return whether the server has left the connection open."""
        return not self.reader.at_eof() and self.reader.exception() is None


class Connections:
    """Connections to a console, all closed at the end of the block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[Connection] = []

    async def open(self, data: bytes = b"", source: str = "127.0.0.1", limit: int = 2**16) -> Connection:
        """Open a connection from `source` and send `data`. At most twice `limit` bytes of answers are read ahead."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0), limit=limit)
        connection = Connection(reader, writer)
        self._open.append(connection)
        connection.send(data)
        return connection

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open:
            connection.writer.transport.abort()
