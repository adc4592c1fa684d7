"""Connections to the pages, bounded in number and time: a client that opens many displaces only its own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Container, Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

OUTCOMES: Final = ("answered", "crowded", "late", "slow", "oversize", "misdirected")
MAX_CONNECTIONS: Final = 256
MAX_OF_ADDRESS: Final = 64
"""Connections of one address while more than half of `MAX_CONNECTIONS` are open."""
RESERVE: Final = 64
"""Connections beyond these bounds. They get an answer from `/health` only, and 503 from every other path."""
REQUEST_S: Final = 5.0
"""From the opening, or from the last answer, to the end of the next request, body included."""
ANSWER_S: Final = 10.0
"""For an answer to be made and read, unless its handler calls `begin_long_answer`."""
STUCK_S: Final = 10.0
"""For a reader to take the `WRITE_BUFFER` bytes that wait: about 5 kB/s."""
WRITE_BUFFER: Final = 2**16
WAITING_S: Final = 120.0
"""For an answer whose handler waits for Kafka, an MQTT broker, a camera, or a change of the recorder's database."""
UNREAD_BYTES: Final = 2**18
"""Bytes of a body that may still arrive after its request was answered."""
HEALTH: Final = "/health"
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close sends a reset."""
_CONNECTION: Final = "connection"
_POLL_S: Final = 1.0


class Connections:
    """The open connections, the oldest first, and a count of each of `OUTCOMES`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shared: Container[str] = frozenset()
        """Addresses without a bound of their own, such as a reverse proxy's: many clients share each."""
        self._open: dict[Connection, None] = {}
        self._reserve: dict[Connection, None] = {}
        self._of_address: Counter[str] = Counter()

    def register(self, connection: Connection) -> None:
        """Add a connection.

        Above a bound, the connection that has waited longest for its whole request is closed. If all others are being
        answered, the new one goes to the reserve.
        """
        network = connection.network
        is_crowded = 2 * len(self._open) >= MAX_CONNECTIONS
        if is_crowded and network not in self.shared and self._of_address[network] >= MAX_OF_ADDRESS:
            displaced = _oldest_unanswered(each for each in self._open if each.network == network)
        elif len(self._open) >= MAX_CONNECTIONS:
            displaced = _oldest_unanswered(self._open)
        else:
            self._add(connection)
            return
        if displaced is not None:
            self.disconnect(displaced, "crowded")
            self._add(connection)
            return
        if len(self._reserve) >= RESERVE:
            self.disconnect(_oldest_unanswered(self._reserve) or connection, "crowded")
        if not connection.transport.is_closing():
            self._reserve[connection] = None
            connection.answer_health_only()

    def _add(self, connection: Connection) -> None:
        self._open[connection] = None
        self._of_address[connection.network] += 1

    def disconnect(self, connection: Connection, why: str) -> None:
        """Close a connection at once."""
        self.counts[why] += 1
        self.unregister(connection)
        # By a reset: the kernel would else keep what a reader has not taken for minutes.
        with suppress(OSError):  # behind TLS it may be closed already
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.transport.abort()

    def unregister(self, connection: Connection) -> None:
        """Remove a connection."""
        self._reserve.pop(connection, None)
        if connection in self._open:
            del self._open[connection]
            self._of_address[connection.network] -= 1
            if not self._of_address[connection.network]:
                del self._of_address[connection.network]


CONNECTIONS: Final = Connections()
"""The connections of this process: uvicorn creates the protocols itself."""


class Connection(H11Protocol):
    """One connection, with a time limit on each request, each answer and each reader."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, _CONNECTION: self}, _loop)
        self.network = ""
        """The address of the client; of an IPv6 client its /64, since one host has all of it."""
        self.patience_s = ANSWER_S
        """Seconds for the answer that is being made."""
        self.is_new = True
        """Whether what the client has sent at once may still be unread."""
        self._stuck_s: float | None = None
        self._unread = UNREAD_BYTES

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin the time limits and take a place."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER)
        if self.client:
            # A listener of both families writes IPv4 addresses as IPv6 ones, which no list of proxies has.
            self.client = unmap_ipv4(self.client[0]), self.client[1]
        self.network = network_of(self.client[0]) if self.client else ""
        self._since_s = self.loop.time()
        self._timer: asyncio.TimerHandle = self.loop.call_later(_POLL_S, self._check_timeout)
        CONNECTIONS.register(self)
        # The socket is watched from the next turn of the loop on, and what it holds is read in that turn.
        self.loop.call_soon(self.loop.call_soon, self._clear_is_new)

    def _clear_is_new(self) -> None:
        self.is_new = False

    @property
    def is_answered(self) -> bool:
        """Whether a whole request has arrived, body included, and its answer is not complete."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def answer_health_only(self) -> None:
        """Answer 503 to each request but one for `HEALTH`."""
        app: ASGIApp = self.app

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            chosen: ASGIApp = app if scope["path"] == HEALTH else service_unavailable  # type: ignore[assignment]  # uvicorn's types
            await chosen(scope, receive, send)

        self.app = answer

    def data_received(self, data: bytes) -> None:
        """Read; the time for an answer begins with the last byte of its request."""
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._unread -= len(data)
            if self._unread < 0:
                CONNECTIONS.disconnect(self, "oversize")
                return
        was_answered = self.is_answered
        super().data_received(data)
        if self.is_answered and not was_answered:
            self._since_s = self.loop.time()

    def pause_writing(self) -> None:
        """Note since when `WRITE_BUFFER` bytes wait for the reader."""
        self._stuck_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the reader has taken them."""
        self._stuck_s = None
        super().resume_writing()

    def _check_timeout(self) -> None:
        now_s = self.loop.time()
        if self._stuck_s is not None and now_s - self._stuck_s > STUCK_S:
            CONNECTIONS.disconnect(self, "slow")
        elif now_s - self._since_s > (self.patience_s if self.is_answered else REQUEST_S):
            CONNECTIONS.disconnect(self, "late")
        else:
            self._timer = self.loop.call_later(_POLL_S, self._check_timeout)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        CONNECTIONS.counts["answered"] += 1
        self._since_s = self.loop.time()
        self.patience_s = ANSWER_S
        self._unread = UNREAD_BYTES
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._timer.cancel()
        CONNECTIONS.unregister(self)
        super().connection_lost(exc)


def begin_long_answer(scope: Scope, patience_s: float = WAITING_S) -> None:
    """Allow the answer to this request `patience_s` seconds; its reader must still keep up."""
    connection = scope.get("state", {}).get(_CONNECTION)
    if isinstance(connection, Connection):
        connection.patience_s = patience_s


def client_of(scope: Scope) -> tuple[str, int] | None:
    """Return address and port at the other end of a request's connection, None without one of ours."""
    connection = scope.get("state", {}).get(_CONNECTION)
    return connection.client if isinstance(connection, Connection) else None


def unmap_ipv4(host: str) -> str:
    """Return the IPv4 address that an IPv6 address maps; any other text as it is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return host if mapped is None else str(mapped)


def network_of(host: str) -> str:
    """Return an IPv4 address itself, and the /64 of an IPv6 address."""
    host = unmap_ipv4(host)
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def _oldest_unanswered(some: Iterable[Connection]) -> Connection | None:
    """Return the oldest connection that has had its chance to send a whole request and still owes one."""
    return next((each for each in some if not each.is_answered and not each.is_new), None)
