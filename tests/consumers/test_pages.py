from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from consumers.board.hosts import Hosts
from consumers.board.visitors import MAX_CONNECTIONS, REQUEST_S
from tests.consumers.pages_rig import Served, get, half_open, pages_process, serving
from tests.waiting import until


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """The same for a whole test."""
    async with serving(tmp_path) as made:
        yield made


@pytest.mark.slow
async def test_visitors_are_answered_beside_a_crowd_of_half_open_requests(served: Served) -> None:
    with half_open(served.port, 3 * MAX_CONNECTIONS) as crowd:
        assert (await get(served.port, "/cameras"))[0] == 200
        status, body = await get(served.port, "/")
        assert (status, "/cameras" in json.loads(body)["answers"]) == (200, True)
        assert (await get(served.port, "/alerts"))[0] == 200
        await until(lambda: served.visits("crowded") >= 2 * MAX_CONNECTIONS)
        assert pages_process().num_fds() < 2 * MAX_CONNECTIONS
        await until(lambda: served.visits("late") > 0)
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


async def test_changes_are_those_since_the_last_answer_and_a_number_that_is_none_is_refused(served: Served) -> None:
    status, body = await get(served.port, "/changes")
    first = json.loads(body)
    assert (status, first["all"], first["cameras"], first["gone"]) == (200, True, [], [])
    status, body = await get(served.port, f"/changes?since={first['version']}")
    assert (status, json.loads(body)) == (200, first | {"all": False})
    for odd in ("-1", "x", "1" * 30, "%c2%b2"):
        assert (await get(served.port, f"/changes?since={odd}"))[0] == 400
    assert (await get(served.port, "/history")) == (200, b"[]")


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
