"""The pages as the recorder sees them: a process of their own, so that no crowd of visitors slows recording.

That process has descriptors and a view of the database of its own. Through a socket it asks for what only the recorder
knows, the cameras now and their last pictures; answering takes a bounded share of the recorder's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from consumers.board.board import Board, monotonic_ms
from consumers.board.web import LENGTH_BYTES, PagesSettings
from consumers.settings import RecorderSettings
from schemas.errors import ConfigError
from schemas.runtime.health import Health
from schemas.transport.access import CERTIFICATE_FILE, KEY_FILE, server_context

_ADDRESS_S: Final = 3.0
"""How long an address may still be held by the pages of a recorder that was killed."""
_AGAIN_S: Final = (0.25, 5.0)
"""First and longest pause before ended pages are started again."""
_SHARE: Final = 0.1
"""Of the recorder's time that answers may take."""
_STOP_S: Final = 1.0

log = structlog.get_logger()


class Pages:
    """Holds the address and keeps a process that serves the pages there.

    The address is taken at once: `ConfigError` when it is not free.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        board: Board,
        health: Health,
        count: Callable[[str, int], None],
        audit: Callable[[], Awaitable[bytes]],
    ) -> None:
        """`count` is called with an outcome of visitors and their number; `audit` gives JSON."""
        if settings.http is None:
            raise ConfigError("expected an address for the pages, got none")
        self._board = board
        self._health = health
        self._count = count
        self._audit = audit
        self._told = PagesSettings(
            database=settings.database, listen=settings.http[0], served_as=settings.served_as, tls=settings.http_tls
        )
        if settings.http_tls is not None:
            server_context(settings.http_tls / CERTIFICATE_FILE, settings.http_tls / KEY_FILE)  # or ConfigError
        self._socket = _listen(*settings.http)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        health.set("pages", False, "not served yet")

    async def serve(self) -> None:
        """Keep the pages served until cancelled."""
        scheme = "http" if self._told.tls is None else "https"
        log.info("pages", address=f"{scheme}://{self.address[0]}:{self.address[1]}/")
        first_s, longest_s = _AGAIN_S
        pause_s = first_s
        while True:
            begun_s = time.monotonic()
            status = await self._run()
            if time.monotonic() - begun_s > longest_s:
                pause_s = first_s
            self._health.set("pages", False, f"ended with status {status}")
            log.warning("pages_ended", status=status)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _run(self) -> int:
        """One process, until it ends; its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start(self._socket, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            _say(writer, self._told.model_dump_json().encode())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while line := await reader.readline():
                    await self._hear(line.decode().rstrip("\n"), writer)
        finally:
            # The closed socket tells it to end.
            writer.close()
            status = await asyncio.shield(asyncio.to_thread(_ended, process))
        return status

    async def _hear(self, line: str, writer: asyncio.StreamWriter) -> None:
        begun_s = time.monotonic()
        what, _, rest = line.partition(" ")
        if what == "ready":
            self._health.set("pages", True)
        elif what == "count":
            outcome, _, number = rest.partition(" ")
            self._count(outcome, int(number))
        elif what == "cameras":
            _say(writer, json.dumps(self._board.describe(monotonic_ms())).encode())
        elif what == "changes":
            version = int(rest) if rest.isdecimal() and len(rest) < 20 else 0
            _say(writer, json.dumps(self._board.describe_since(version, monotonic_ms())).encode())
        elif what == "audit":
            # What it takes runs beside this; waiting for it is no work.
            answer = await self._audit()
            begun_s = time.monotonic()
            _say(writer, answer)
        elif what == "preview":
            _say(writer, self._board.preview(rest) or b"")
        await writer.drain()
        await asyncio.sleep((time.monotonic() - begun_s) * (1 / _SHARE - 1))

    async def close(self) -> None:
        """Give the address back."""
        self._socket.close()


def _say(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)


def _start(*inherited: socket.socket) -> subprocess.Popen[bytes]:
    numbers = [each.fileno() for each in inherited]
    command = [sys.executable, "-m", "consumers.board.web", *map(str, numbers)]
    # Strangers talk to it: the fleet secret is not its business.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTILLIST_")}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=numbers, env=environment)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit status; killed when it does not end by itself."""
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"expected an address for the pages, got {host}:{port}: {error}") from None
    end_s = time.monotonic() + _ADDRESS_S
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            listening.bind(address)
            listening.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < end_s:
                time.sleep(0.05)
                continue
            listening.close()
            raise ConfigError(f"expected a free address for the pages, got {host}:{port}: {error}") from None
        listening.setblocking(False)
        return listening
