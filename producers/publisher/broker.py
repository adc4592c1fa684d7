"""The MQTT broker as all cameras of a process see it: its address, connections to it, one voice to complain."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from schemas.identity import CameraId
from schemas.runtime.throttle import Throttle
from schemas.transport.access import Login, Tls, secured_on_loop

_log = structlog.get_logger()
_AGAIN_S: Final = 60.0
_KINDS: Final = 100

_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Broker:
    """Shared by the links of a process. At most `at_once` of them connect at a time, fewer than a broker lets wait."""

    def __init__(
        self,
        host: str,
        port: int,
        at_once: int,
        tls: Mapping[CameraId, Tls] | None = None,
        login: Login | None = None,
    ) -> None:
        """`tls` holds the certificates of each camera; None is without TLS. All cameras share `login`."""
        self.host = host
        self.port = port
        self.tls = tls
        self.login = login
        self._dialling = asyncio.Semaphore(at_once)
        self._told: Throttle[tuple[str, str]] = Throttle(_AGAIN_S, remembered=_KINDS)

    async def dial(self, timeout_s: float, tls: ssl.SSLContext | None = None) -> socket.socket:
        """Return a connected socket that does not block, with TLS if given; `OSError` when that fails or exceeds the
        timeout.

        It connects on the event loop. A thread would wait 5 ms for the interpreter at every system call while the loop
        is busy: minutes for ten thousand cameras.
        """
        async with self._dialling:
            try:
                async with asyncio.timeout(timeout_s):
                    dialled = await self._dial()
                    return dialled if tls is None else await secured_on_loop(dialled, tls, self.host)
            except TimeoutError:
                raise TimeoutError("timed out") from None

    async def _dial(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        problem = OSError(f"no address of {self.host}")
        for family, kind, protocol, _, address in await self._addresses():
            dialled = socket.socket(family, kind, protocol)
            try:
                dialled.setblocking(False)
                await loop.sock_connect(dialled, address)
            except OSError as error:
                dialled.close()
                problem = error
            except BaseException:
                dialled.close()
                raise
            else:
                return dialled
        raise problem

    async def _addresses(self) -> Sequence[_Address]:
        try:  # one in digits needs nobody to be asked
            return socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)

    def complain(self, event: str, detail: str) -> None:
        """Log a problem once a minute, however many cameras have it and however often they try."""
        if self._told.take((event, detail), time.monotonic()):
            _log.warning(event, broker=f"{self.host}:{self.port}", detail=detail)
