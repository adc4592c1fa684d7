"""A crowd of clients: connections that are held open, and replaced at a bounded rate when the server closes them."""

from __future__ import annotations

import errno
import math
import resource
import select
import socket
import threading
import time
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Final

Address = tuple[str, int]

_FILES: Final = 4_096
_TICK_S: Final = 0.02
_CHUNK: Final = bytes(2**16)
_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: the port is chosen at the connect, so that one address can use all ports."""


@dataclass(frozen=True)
class Habit:
    """The behaviour of each connection of a crowd."""

    requests: tuple[bytes, ...]
    """Each connection sends one of these, in turn."""
    body_bytes: int = 0
    """Bytes sent after the request, as fast as the server reads them."""
    reads: bool = True
    """Read the answer. Otherwise leave it in a small receive buffer."""
    lasts_s: float = math.inf
    """Close after this time: a client that reads nothing does not detect that the server has closed."""
    leaves: bool = False
    """Close as soon as the request is sent."""


class Crowd:
    """A number of open connections, maintained by a thread."""

    def __init__(
        self, address: Address, habit: Habit, *, held: int, per_second: float, sources: tuple[str, ...] = ()
    ) -> None:
        """Keep `held` connections open, opening at most `per_second` per second, from `sources` in turn."""
        self.opened = 0
        self.ended = 0
        """Connections that the server closed."""
        self.most_open = 0
        self.error = ""
        """The reason if the crowd could not go on."""
        self._address = address
        self._habit = habit
        self._held = held
        self._per_second = per_second
        self._sources = cycle(sources or ("",))
        self._requests = cycle(habit.requests)
        self._open: dict[int, _Connection] = {}
        self._events = select.poll()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run_to_end, name="crowd")
        self._thread.start()

    def close(self) -> None:
        """Close all connections and stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run_to_end(self) -> None:
        try:
            self._run()
        except OSError as error:
            self.error = str(error)
        for number in list(self._open):
            self._remove(number)

    def _run(self) -> None:
        begun_s = time.monotonic()
        while not self._stop.is_set():
            due = (time.monotonic() - begun_s) * self._per_second - self.opened
            for _ in range(min(int(due), self._held - len(self._open))):
                self._add()
            # Connections that could not be opened in time are not opened later: the rate is a bound.
            begun_s = max(begun_s, time.monotonic() - (self.opened + self._per_second / 10) / self._per_second)
            self.most_open = max(self.most_open, len(self._open))
            until_s = time.monotonic() + _TICK_S
            for number in [each for each, one in self._open.items() if until_s > one.ends_s]:
                self._remove(number)
            for number, event in self._events.poll(1000 * _TICK_S):
                self._serve(number, event)
            time.sleep(max(0.0, until_s - time.monotonic()))

    def _add(self) -> None:
        connection = _Connection(self._address, next(self._sources), next(self._requests), self._habit)
        number = connection.socket.fileno()
        self._open[number] = connection
        self._events.register(number, connection.wanted())
        self.opened += 1

    def _serve(self, number: int, event: int) -> None:
        connection = self._open[number]
        goes_on = False
        if not event & (select.POLLERR | select.POLLHUP | select.POLLRDHUP):
            try:
                goes_on = connection.serve(event)
            except BlockingIOError:
                goes_on = True
            except OSError:
                goes_on = False
        if goes_on:
            self._events.modify(number, connection.wanted())
        else:
            self.ended += not connection.has_left
            self._remove(number)

    def _remove(self, number: int) -> None:
        self._events.unregister(number)
        self._open.pop(number).socket.close()


def besiege(
    address: Address,
    habit: Habit,
    held: int,
    per_second: float,
    sources: tuple[str, ...],
    begins: Event,
    ends: Event,
    counts: Queue[dict[str, int] | str],
) -> None:
    """Keep a crowd until `ends` is set. This is the main function of a process.

    `counts` receives the crowd's counts, or a text with the reason if it could not go on.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    crowd = Crowd(address, habit, held=held, per_second=per_second, sources=sources)
    begins.set()
    ends.wait()
    crowd.close()
    found = {"opened": crowd.opened, "ended_by_server": crowd.ended, "most_open": crowd.most_open}
    counts.put(crowd.error or found)


class _Connection:
    """One connection of a crowd."""

    def __init__(self, address: Address, source: str, request: bytes, habit: Habit) -> None:
        self.has_left = False
        self.ends_s = time.monotonic() + habit.lasts_s
        self._unsent = request
        self._body_left = habit.body_bytes
        self._habit = habit
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if not habit.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        if source:
            self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            try:
                self.socket.bind((source, 0))
            except OSError:
                self.socket.close()
                raise
        status = self.socket.connect_ex(address)
        if status not in (0, errno.EINPROGRESS):
            self._unsent = b""  # The next event is an error.

    def wanted(self) -> int:
        """Return the number of events to wait for."""
        sends = select.POLLOUT if self._unsent or self._body_left else 0
        return sends | (select.POLLIN if self._habit.reads else select.POLLRDHUP)

    def serve(self, event: int) -> bool:
        """Send or read. Return whether the connection stays open."""
        if event & select.POLLIN and not self.socket.recv(2**16):
            return False
        if event & select.POLLOUT:
            if self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            elif self._body_left:
                self._body_left -= self.socket.send(_CHUNK[: self._body_left])
            if self._habit.leaves and not self._unsent:
                self.has_left = True
                return False
        return True
