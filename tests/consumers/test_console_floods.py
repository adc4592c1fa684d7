"""Connections that occupy places of the console: incomplete requests, slow readers, many of one address or user."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from consumers.console.access import connections
from consumers.console.access.connections import CONNECTIONS, network_of
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.api import routes as api
from consumers.console.data import export, stream
from consumers.console.data.export import MOST_EXPORTS
from consumers.database.recorded import RecorderDatabase
from schemas.clock import unix_ms
from tests.consumers.recorder_rig import CAMERA, Rig
from tests.consumers.served_console import Connection, Connections, client, form, get, head, log_in, serving
from tests.waiting import PATIENCE_S, until

PASSWORD = "long enough to guess at"
HALF = head("/login")[:-2]
ONE, OTHER = "127.0.0.3", "127.0.0.4"
EXPORT = "/api/v1/export/verdicts.csv"


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "users"
    for name in ("anna", "berta"):
        write_user(file, name, Right.VIEWER, PASSWORD)
    return file


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no connection time out unless a test sets the limit; check the limits often."""
    monkeypatch.setattr(connections, "_POLL_S", 0.05)
    for name in ("REQUEST_S", "ANSWER_S", "STUCK_S"):
        monkeypatch.setattr(connections, name, 2 * PATIENCE_S)


async def is_answered(line: Connection) -> bool:
    """Complete a begun request. Return whether the answer has status 200."""
    line.send(b"\r\n")
    return await line.status() == 200


@pytest.mark.parametrize("path", ["/static/live", "/static/export", "/login"])
async def test_requests_of_strangers_without_their_body_occupy_no_place(
    tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        for _ in range(16):
            await clients.open(head(path, "Content-Length: 1000", method="POST"))
        for _ in range(3):
            assert (await get(port, "/login"))[0] == 200


@pytest.mark.parametrize("path", ["/fleet/live", "/live", EXPORT])
async def test_the_time_limit_of_a_request_applies_to_streams_until_its_last_byte(
    tmp_path: Path, endless: threading.Event, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    async with serving(tmp_path) as (port, _), Connections(port) as clients:
        assert await (await clients.open(head(path, "Content-Length: 10"))).has_ended()


async def test_a_body_is_read_only_with_a_session_and_the_right_to_send_it(tmp_path: Path, users: Path) -> None:
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        announced = "Content-Length: 1000"
        kind = "Content-Type: application/json"
        for path, status in (("/static/live", 405), ("/health", 303), ("/fleet/forget", 303), ("/api/v1/x", 401)):
            assert await (await clients.open(head(path, announced, kind, method="POST"))).status() == status, path
        viewer = await log_in(port, "anna", PASSWORD)
        for path, status in (("/fleet/forget", 403), ("/api/v1/cameras/a/b/forget", 403)):
            line = await clients.open(head(path, announced, kind, method="POST", cookie=viewer))
            assert await line.status() == status, path


async def test_a_large_login_form_is_rejected(tmp_path: Path, users: Path) -> None:
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        large = await clients.open(form("/login", name="anna", password="x" * 10_000))
        assert await large.status() == 400


async def test_a_body_that_continues_after_its_answer_is_cut_off(tmp_path: Path, users: Path) -> None:
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        line = await clients.open(head("/static/live", f"Content-Length: {2**30}", method="POST"))
        assert await line.status() == 405

        async def is_cut() -> bool:
            line.send(bytes(2**16))
            return line.writer.transport.is_closing() or not line.is_open()

        await until(is_cut)


async def test_incomplete_requests_displace_only_each_other(
    tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        for _ in range(24):
            await clients.open(HALF)
            assert (await get(port, "/login"))[0] == 200


async def test_an_address_above_its_bound_displaces_its_own_connections(
    tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 16)
    monkeypatch.setattr(connections, "MAX_OF_ADDRESS", 4)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        before = [await clients.open(HALF, OTHER) for _ in range(4)]
        crowd = [await clients.open(HALF, ONE) for _ in range(40)]
        assert await crowd[0].has_ended()
        assert [await is_answered(each) for each in before] == [True] * 4
        assert await is_answered(crowd[-1])


async def test_a_shared_address_has_no_bound(tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 16)
    monkeypatch.setattr(connections, "MAX_OF_ADDRESS", 4)
    monkeypatch.setattr(CONNECTIONS, "shared", frozenset({ONE}))
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        crowd = [await clients.open(HALF, ONE) for _ in range(16)]
        assert [await is_answered(each) for each in crowd] == [True] * 16


def test_all_addresses_of_an_ipv6_host_count_as_one() -> None:
    assert network_of("2001:db8:0:1::5") == network_of("2001:db8::1:ffff:0:0:1") != network_of("2001:db8:0:2::5")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")


async def test_a_health_check_is_answered_when_all_places_are_occupied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(connections, "RESERVE", 4)
    async with serving(tmp_path) as (port, _), Connections(port) as clients:
        streams = [await clients.open(head("/fleet/live"), ONE) for _ in range(4)]
        assert [await each.status() for each in streams] == [200] * 4
        assert (await get(port, "/"))[0] == 503
        for _ in range(8):
            await clients.open(HALF, ONE)
            assert (await get(port, "/health"))[0] == 200
        assert all(each.is_open() for each in streams)


async def test_a_complete_request_is_answered_though_newer_connections_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    async with serving(tmp_path) as (port, _), Connections(port) as clients:
        streams = [await clients.open(head("/fleet/live"), ONE) for _ in range(3)]
        assert [await each.status() for each in streams] == [200] * 3
        # All of these wait in the kernel before the console accepts the next connection.
        at_once = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        try:
            for each, data in zip(at_once, (head("/login"), *[HALF] * 7), strict=True):
                each.sendall(data)
            at_once[0].setblocking(False)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(at_once[0], 2**16), PATIENCE_S)
            assert answer.startswith(b"HTTP/1.1 200 ")
        finally:
            for each in at_once:
                each.close()


async def test_streams_are_bounded_for_each_user(tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_OF_USER", 2)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        anna, berta = [await log_in(port, name, PASSWORD) for name in ("anna", "berta")]
        opened = [await clients.open(head("/fleet/live", cookie=anna)) for _ in range(2)]
        assert [await each.status() for each in opened] == [200, 200]
        assert await (await clients.open(head("/live", cookie=anna))).status() == 429
        assert await (await clients.open(head("/live", cookie=berta))).status() == 200
        opened[0].writer.close()

        async def is_accepted() -> bool:
            return await (await clients.open(head("/live", cookie=anna))).status() == 200

        await until(is_accepted)


PIECE = bytes(2**20)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make exports endless until the yielded event is set."""
    ended = threading.Event()

    def lines_of(_: object) -> Iterator[bytes]:
        while not ended.is_set():
            yield PIECE

    monkeypatch.setattr(RecorderDatabase, "read", lambda *_: None)
    monkeypatch.setattr(api, "settled_at_ms", lambda *_: 0)
    monkeypatch.setattr(api, "rows", lambda *_: iter(()))
    monkeypatch.setattr(api, "as_csv", lines_of)
    yield ended
    ended.set()


async def test_exports_are_bounded_for_each_user_and_in_total(
    tmp_path: Path, users: Path, endless: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_OF_USER", 2)
    monkeypatch.setattr(export, "MOST_EXPORTS", 3)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        anna, berta = [await log_in(port, name, PASSWORD) for name in ("anna", "berta")]
        expected = ((anna, 200), (anna, 200), (anna, 429), (berta, 200), (berta, 503))
        for number, (cookie, status) in enumerate(expected):
            assert await (await clients.open(head(EXPORT, cookie=cookie))).status() == status, number


async def test_exports_occupy_no_connection_of_other_readers(
    tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, answers = [0], threading.Event()

    def slow(engine: Engine, *_: object) -> Iterator[list[tuple[object, ...]]]:
        with engine.connect():
            reading[0] += 1
            answers.wait(PATIENCE_S)
        yield []

    monkeypatch.setattr(api, "rows", slow)
    async with serving(tmp_path, database=recorder.url) as (port, health), Connections(port) as clients:
        try:
            for _ in range(MOST_EXPORTS):
                assert await (await clients.open(head(EXPORT))).status() == 200
            await until(lambda: reading[0] == MOST_EXPORTS)
            assert await (await clients.open(head(EXPORT))).status() == 503
            assert await get(port, "/api/v1/dead-letters") == (200, b"[]")
            await until(lambda: health.report()[1]["database"]["ok"])
        finally:
            answers.set()


async def test_an_export_ends_with_its_connection_while_there_are_no_verdicts(
    tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_EXPORTS", 1)
    monkeypatch.setattr(export, "_WINDOW_MS", 1)  # the last hour has millions of windows
    path = f"{EXPORT}?camera={CAMERA}"
    async with serving(tmp_path, database=recorder.url) as (port, _), Connections(port) as clients:
        opened = await clients.open(head(path))
        assert await opened.status() == 200
        assert await (await clients.open(head(path))).status() == 503
        opened.writer.close()

        async def is_accepted() -> bool:
            return await (await clients.open(head(path))).status() == 200

        await until(is_accepted)


async def test_an_export_without_verdicts_is_complete(tmp_path: Path, recorder: Rig) -> None:
    async with serving(tmp_path, database=recorder.url) as (port, _), client() as visitor:
        url = f"http://127.0.0.1:{port}{EXPORT}?camera={CAMERA}&since_ms={unix_ms() - 86_400_000}"
        assert (await visitor.get(url)).text == f"{','.join(export.COLUMNS)}\n"


async def test_an_export_ends_with_its_login(tmp_path: Path, endless: threading.Event) -> None:
    users = tmp_path / "users"
    write_user(users, "anna", Right.VIEWER, PASSWORD)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        found = await clients.open(head(EXPORT, cookie=await log_in(port, "anna", PASSWORD)))
        assert await found.status() == 200
        assert await found.reader.read(2**16)
        write_user(users, "anna", Right.VIEWER, "another password")
        assert await found.has_ended()


async def test_a_client_that_reads_nothing_is_disconnected_and_its_place_freed(
    tmp_path: Path, users: Path, endless: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_EXPORTS", 1)
    async with serving(tmp_path, users=users) as (port, _), Connections(port) as clients:
        anna = await log_in(port, "anna", PASSWORD)
        stuck = await clients.open(head(EXPORT, cookie=anna), limit=1_024)
        assert await stuck.status() == 200
        assert await (await clients.open(head(EXPORT, cookie=anna))).status() == 503
        monkeypatch.setattr(connections, "STUCK_S", 0.3)

        async def is_accepted() -> bool:
            return await (await clients.open(head(EXPORT, cookie=anna))).status() == 200

        await until(is_accepted)
        assert await stuck.has_ended()
