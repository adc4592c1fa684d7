"""Base of the local brokers and monitoring servers: ports, a child process, and a wait until it answers."""

from __future__ import annotations

import string
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

from infra.local.child_environment import inherited
from infra.local.ports import LOOPBACK, Ports, is_free
from infra.local.process import Child, ProcessId, last_lines
from schemas.errors import BrokerError
from schemas.runtime.atomic_file import write_text

INFRA = Path(__file__).resolve().parent.parent
_PORT_RACES = 5


class Service(ABC):
    """A program that listens on loopback and keeps its files in `state`/`role`.

    Its ports are chosen at the first start and stay for as long as this object lives, because clients use them. A later
    object on the same state folder takes them again when they are free.
    """

    role: str
    port_names: tuple[str, ...]
    """Names of the ports; clients connect to the first."""

    def __init__(self, state: Path, ports: Ports | None = None, *, ready_s: float = 60.0) -> None:
        """`state` is the state folder; `ready_s` is the longest time from a start (after `_fetch`) to an answer."""
        self.folder = state.resolve() / self.role
        self.log = self.folder / f"{self.role}.log"
        self._memory = ports or Ports(state)
        self._ready_s = ready_s
        self._ports: dict[str, int] = {}
        self._reserved = False
        self._child: Child | None = None
        self._abandoned = threading.Event()

    def _fetch(self) -> None:  # noqa: B027  # most services need nothing
        """Fetch what the program needs and the machine lacks. It may last longer than a start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the configuration for `self._ports`; return the command line. It runs in `self.folder`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the service answers a client now, within a second or two."""

    def _repair(self) -> bool:
        """Remove the cause for which the program ended before its first answer; return whether it is removed."""
        return False

    def _environment(self) -> dict[str, str]:
        """Return the environment of its process, without this process's secrets."""
        return inherited()

    @property
    def host(self) -> str:
        """The host, always loopback."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """The port for clients. Raises BrokerError before the first start."""
        if not self._ports:
            raise BrokerError(f"{self.role}: expected a started service, got none")
        return self._ports[self.port_names[0]]

    @property
    def listen(self) -> str:
        """`host:port` for clients."""
        return f"{self.host}:{self.port}"

    def reserve(self) -> str:
        """Choose the ports before the first start, and return `listen`.

        The start replaces a port that another program has taken meanwhile.
        """
        if not self._ports:
            self._ports = {name: self._memory.allocate(name) for name in self.port_names}
            self._reserved = True
        return self.listen

    @property
    def child(self) -> Child:
        """The process. Raises BrokerError before the first start."""
        if self._child is None:
            raise BrokerError(f"{self.role}: expected a started service, got none")
        return self._child

    def start(self) -> ProcessId:
        """Start, wait until the service answers, and return its pid and start time; callable from any thread.

        At the first start, a port that another program uses is replaced. Raises BrokerError, with the last lines of the
        log, when the service ends or does not answer in time. Raises it too when a port that clients already use is
        taken, or a program that it needs is not installed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fetch()
        first, self._reserved = self._reserved or not self._ports, False
        end = time.monotonic() + self._ready_s
        for _ in range(_PORT_RACES):
            if first:
                self._ports = {name: self._memory.allocate(name) for name in self.port_names}
            else:
                self._await_ports(end)
            child = Child(self._command(), self.log, cwd=self.folder, env=self._environment())
            process = child.start()
            self._child = child  # only now: if it cannot be started, the one before it has ended
            if self._await_answer(end):
                return process
            if self.child.poll() is None:
                break
            if not self._repair() and all(is_free(port) for port in self._ports.values()):
                break  # it ended for another reason than a taken port
        status = self.child.poll()
        got = "none" if status is None else f"the end of the program with status {status}"
        self.child.kill()
        if first:
            self._ports = {}
        raise BrokerError(
            f"{self.role}: expected an answer within {self._ready_s:g} s, got {got}: "
            f"{last_lines(self.log) or 'its log is empty'}. Read {self.log}."
        )

    def _await_ports(self, end: float) -> None:
        while taken := [port for port in self._ports.values() if not is_free(port)]:
            if time.monotonic() >= end or self._abandoned.is_set():
                raise BrokerError(
                    f"{self.role}: expected its port {taken[0]} to be free again, got one in use. Stop the program "
                    "that uses it."
                )
            time.sleep(0.05)

    def _await_answer(self, end: float) -> bool:
        while self.child.poll() is None and time.monotonic() < end and not self._abandoned.is_set():
            if self._answers():
                # Another program may have taken the port first, and answer in place of a child that is about to fail.
                return self.child.poll() is None
            time.sleep(0.02)
        return False

    def abandon(self) -> None:
        """Let a start that still waits fail now. There is no later start."""
        self._abandoned.set()

    def stop(self, deadline_s: float = 15.0) -> None:
        """Stop it in good order, by SIGTERM; SIGKILL after the deadline."""
        if self._child is not None:
            self._child.stop(deadline_s)

    def restart(self) -> ProcessId:
        """Stop, then start on the same ports and files."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """Kill it by SIGKILL."""
        self.child.kill()

    def pause(self) -> None:
        """Send SIGSTOP: it hangs, connections stay open."""
        self.child.pause()

    def resume(self) -> None:
        """Send SIGCONT after `pause`."""
        self.child.resume()

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.child.poll()


def fill(template: Path, target: Path, **values: object) -> Path:
    """Write `template` to `target` with each `$NAME` replaced; KeyError when one has no value."""
    text = string.Template(template.read_text()).substitute(values)
    write_text(target, text)
    return target


def instance_names(name: str, count: int) -> list[str]:
    """Return the names of `count` processes of a kind: `bridge` for one, else `bridge-1`, `bridge-2`, …"""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
