from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from consumers.hosts import Hosts
from consumers.recorder import run_recorder
from consumers.settings import RecorderSettings
from consumers.visitors import MAX_CONNECTIONS, REQUEST_S
from schemas.health import Health

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


async def get(port: int, path: str, host: str = "127.0.0.1", wait_s: float = 20.0) -> tuple[int, bytes]:
    """Status and body of one request under the name `host`."""
    async with asyncio.timeout(wait_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            return int(head.split()[1]), body
        finally:
            writer.close()
            await writer.wait_closed()


async def until(condition: object, wait_s: float = 30.0) -> None:
    """Wait until the call of `condition` gives something true."""
    async with asyncio.timeout(wait_s):
        while not condition():  # type: ignore[operator]  # the caller gives a function
            await asyncio.sleep(0.05)


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
    (found,) = (child for child in psutil.Process().children() if "consumers.web" in child.cmdline())
    return found


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Served]:
    """The pages of a recorder that has no Kafka."""
    made = Served(free_port())
    settings = RecorderSettings(
        kafka="127.0.0.1:1",
        database=f"sqlite:///{tmp_path}/records.sqlite",
        quarantine=str(tmp_path),
        http=("127.0.0.1", made.port),
        served_as=("door.example",),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(run_recorder(settings, registry=made.registry, health=made.health, stop=stop))
    try:
        await until(lambda: task.done() or made.is_up())
        yield made
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """The same for a whole test."""
    async with serving(tmp_path) as made:
        yield made


async def test_visitors_are_answered_beside_a_crowd_of_half_open_requests(served: Served) -> None:
    with half_open(served.port, 3 * MAX_CONNECTIONS) as crowd:
        assert (await get(served.port, "/cameras"))[0] == 200
        assert (await get(served.port, "/alerts"))[0] == 200
        await until(lambda: served.visits("crowded") >= 2 * MAX_CONNECTIONS)
        assert pages_process().num_fds() < 2 * MAX_CONNECTIONS
        await until(lambda: served.visits("late") > 0, REQUEST_S + 20)
        for each in crowd[-3:]:
            each.settimeout(REQUEST_S + 20)
            assert await asyncio.to_thread(_ended, each)


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_only_the_hosts_that_the_pages_are_served_as_are_answered(served: Served) -> None:
    for host in ("127.0.0.1", f"localhost:{served.port}", "door.example"):
        assert (await get(served.port, "/cameras", host))[0] == 200
    for path in ("/", "/cameras", "/preview/lab/door.jpg", "/dead-letters"):
        status, body = await get(served.port, path, f"attacker.example:{served.port}")
        assert status == 421
        assert "attacker.example" in json.loads(body)["error"]
    await until(lambda: served.visits("misdirected") == 4)


async def test_the_fleet_secret_is_not_told_to_the_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", "11" * 32)
    async with serving(tmp_path):
        assert not [name for name in pages_process().environ() if name.startswith("POINTILLIST_")]


async def test_pages_that_have_died_are_served_again(served: Served) -> None:
    os.kill(pages_process().pid, signal.SIGKILL)
    await until(lambda: not served.is_up())
    await until(served.is_up)
    assert (await get(served.port, "/cameras"))[0] == 200


@pytest.mark.parametrize(
    ("listen", "served_as", "right", "wrong"),
    [
        (
            "127.0.0.1",
            (),
            ["127.0.0.1:80", "localhost", "[::1]:80"],
            ["evil.example", "10.0.0.1", "", "localhost.evil"],
        ),
        ("0.0.0.0", (), ["10.0.0.1:8080", "localhost:1", "[fe80::1]"], ["evil.example", "recorder"]),
        ("10.0.0.1", ("Door.Example.",), ["10.0.0.1", "door.example:80"], ["127.0.0.1", "localhost", "example"]),
        ("recorder.lan", (), ["recorder.lan:80"], ["10.0.0.1", "recorder"]),
    ],
)
def test_hosts_are_the_address_itself_and_the_names_given(
    listen: str, served_as: tuple[str, ...], right: list[str], wrong: list[str]
) -> None:
    hosts = Hosts(listen, served_as)
    assert [host for host in right if host not in hosts] == []
    assert [host for host in wrong if host in hosts] == []
