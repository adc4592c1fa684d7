"""The ends of a session and its streams: logout, a change of the user, and twelve hours."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.console.access.cookies import COOKIE
from consumers.console.access.rights import Person, Right, Roles
from consumers.console.access.sessions import LONGEST_S, MOST, Sessions
from consumers.console.access.users import remove_user, write_user
from consumers.console.data import stream
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.served_console import serving
from tests.waiting import PATIENCE_S

PASSWORD = "a long password"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    write_user(file, "vera", Right.OPERATOR, PASSWORD)
    write_user(file, "anna", Right.ADMIN, PASSWORD)
    return file


def remove(file: Path) -> None:
    remove_user(file, "vera")


def change_password(file: Path) -> None:
    write_user(file, "vera", Right.OPERATOR, "another password")


def change_right(file: Path) -> None:
    write_user(file, "vera", Right.VIEWER, PASSWORD)


def damage(file: Path) -> None:
    file.write_text(f"{file.read_text()}nobody\n")


def delete(file: Path) -> None:
    file.unlink()


CHANGES = pytest.mark.parametrize("change", [remove, change_password, change_right, damage, delete])


@CHANGES
def test_a_session_ends_when_its_user_changes_without_a_restart(
    tmp_path: Path, users: Path, change: Callable[[Path], None]
) -> None:
    rig = ConsoleRig(tmp_path, users=users)
    browser = rig.browser()
    fields = {"name": "vera", "password": PASSWORD}
    assert browser.post("/login", data=fields).status_code == 303
    assert browser.get("/").status_code == 200
    assert browser.get("/api/v1/cameras", auth=("vera", PASSWORD)).status_code == 200
    change(users)
    assert browser.get("/").status_code == 303
    expected = 303 if change is change_right else 403
    assert rig.browser().post("/login", data=fields).status_code == expected
    assert (rig.browser().get("/api/v1/cameras", auth=("vera", PASSWORD)).status_code == 200) == (expected == 303)
    rig.close()


def test_a_new_user_logs_in_without_a_restart(tmp_path: Path, users: Path) -> None:
    rig = ConsoleRig(tmp_path, users=users)
    write_user(users, "carl", Right.VIEWER, PASSWORD)
    assert rig.browser().post("/login", data={"name": "carl", "password": PASSWORD}).status_code == 303
    rig.close()


def test_a_session_ends_after_twelve_hours_of_use() -> None:
    now_s, anna = [0.0], Person("anna", Roles.parse(Right.VIEWER))
    sessions = Sessions(clock_s=lambda: now_s[0])
    token, passing = sessions.begin(anna), sessions.passing(anna)
    for _ in range(11):
        now_s[0] += 3_600
        assert sessions.find(token) is not None
    now_s[0] = LONGEST_S - 1
    found = sessions.find(token)
    assert found is not None
    assert sessions.holds(found)
    assert sessions.holds(passing)
    now_s[0] = LONGEST_S
    assert not sessions.holds(found)
    assert not sessions.holds(passing)
    assert sessions.find(token) is None


def test_the_oldest_session_beyond_the_bound_ends() -> None:
    anna = Person("anna", Roles.parse(Right.VIEWER))
    sessions = Sessions()
    first = sessions.find(sessions.begin(anna))
    assert first is not None
    for _ in range(MOST):
        sessions.begin(anna)
    assert not sessions.holds(first)


async def _send(port: int, head: str, body: str = "") -> str:
    """Send a request. Return the answer as text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n{body}".encode())
    answer = (await asyncio.wait_for(reader.read(-1), PATIENCE_S)).decode()
    writer.close()
    return answer


async def _log_in(port: int) -> str:
    body = f"name=vera&password={PASSWORD.replace(' ', '+')}"
    answer = await _send(port, f"POST /login HTTP/1.1\r\nContent-Length: {len(body)}", body)
    return answer.partition(f"{COOKIE}=")[2].partition(";")[0]


@pytest.mark.parametrize(
    ("page", "ends"), [("/fleet/live", remove), ("/live", change_right), ("/system/live", None)],
    ids=["removed", "changed", "logged out"],
)  # fmt: skip
async def test_a_stream_ends_with_its_session(
    tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch, page: str, ends: Callable[[Path], None] | None
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    async with serving(tmp_path, users=users) as (port, _):
        token = await _log_in(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {page} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {COOKIE}={token}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"event: alive"), PATIENCE_S)
        if ends is not None:
            ends(users)
        else:
            await _log_out(port, token)
        await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), PATIENCE_S)
        writer.close()


async def _log_out(port: int, token: str) -> None:
    page = await _send(port, f"GET /system HTTP/1.1\r\nCookie: {COOKIE}={token}")
    body = "csrf=" + page.partition('name="csrf" value="')[2].partition('"')[0]
    head = f"POST /logout HTTP/1.1\r\nCookie: {COOKIE}={token}\r\nContent-Length: {len(body)}"
    assert " 303 " in await _send(port, head, body)


async def test_a_busy_stream_ends_with_its_session(tmp_path: Path, users: Path) -> None:
    rig = ConsoleRig(tmp_path, users=users)
    known = rig.context.login_methods.users
    assert known is not None
    vera = known()["vera"]
    session = rig.context.sessions.passing(vera, rig.context.logins.is_current(vera))
    rig.context.fleet.changed.set()
    sent = 0
    async for _ in stream.Streams(rig.context.fleet, rig.context.sessions)._events(session, lambda: "changed"):
        sent += 1
        if sent == 4:
            remove(users)
        if sent > 20:
            break
    assert sent == 4
    rig.close()


def _basic(name: str) -> str:
    return base64.b64encode(f"{name}:guess".encode()).decode()


async def _status_as(port: int, forwarded: str, name: str) -> int:
    head = f"GET /api/v1/cameras HTTP/1.1\r\nAuthorization: Basic {_basic(name)}\r\nX-Forwarded-For: {forwarded}"
    return int((await _send(port, head)).split()[1])


@pytest.mark.parametrize(
    ("proxy", "expected"), [(None, [401] * 5 + [429]), ("127.0.0.2", [401] * 5 + [429]), ("127.0.0.1", [401] * 6)]
)
async def test_only_the_configured_proxy_may_forward_the_address_of_a_visitor(
    tmp_path: Path, users: Path, proxy: str | None, expected: list[int]
) -> None:
    async with serving(tmp_path, users=users, behind_proxy=proxy) as (port, _):
        assert [await _status_as(port, f"192.0.2.{number}", "vera") for number in range(6)] == expected


@pytest.mark.usefixtures("costly_passwords")
async def test_abandoned_requests_with_passwords_block_no_login(tmp_path: Path, users: Path) -> None:
    async with serving(tmp_path, users=users, behind_proxy="127.0.0.1") as (port, _):
        for number in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET /api/v1/cameras HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 10.0.{number % 250}.1\r\n"
                f"Authorization: Basic {_basic(f'name {number}')}\r\n\r\n".encode()
            )
            await writer.drain()
            writer.close()
        assert await asyncio.wait_for(_log_in(port), PATIENCE_S)
