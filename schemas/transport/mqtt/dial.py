"""TCP and TLS connections to a broker, opened on the event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

from schemas.transport.access import secured_on_loop

_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def dial(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connected, non-blocking socket, with TLS if given. Raises OSError if that fails or exceeds the timeout.

    It connects on the event loop. While the loop is busy, a thread would wait 5 ms for the interpreter at each system
    call: minutes for ten thousand cameras.
    """
    try:
        async with asyncio.timeout(timeout_s):
            dialled = await _connected(host, port, timeout_s)
            return dialled if tls is None else await secured_on_loop(dialled, tls, host)
    except TimeoutError:
        raise TimeoutError("timed out") from None


async def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to the first address of the host that accepts.

    The addresses share the remaining time evenly: a silent one leaves time for those after it.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    problem = OSError(f"{host}: expected an address of this host, got none")
    addresses = await _addresses(host, port)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            async with asyncio.timeout((end_s - loop.time()) / (len(addresses) - tried)):
                await loop.sock_connect(dialled, address)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            dialled.close()
            problem = error
        except BaseException:
            dialled.close()
            raise
        else:
            return dialled
    raise problem


async def _addresses(host: str, port: int) -> Sequence[_Address]:
    """Return the addresses of a host. A numeric one needs no resolver."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
