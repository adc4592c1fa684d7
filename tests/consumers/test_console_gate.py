"""The gate of the console: it checks rights by the path of the route, never by the host header."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import URL
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from consumers.console.access.gate import Gate
from consumers.console.access.logins import LoginMethods, Logins
from consumers.console.access.rights import OpenMount, Right, RouteRights
from consumers.console.access.sites import may
from consumers.console.access.users import Users, write_user
from consumers.database.console_store import AuditLog


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("a picture")(scope, receive, send)


async def _ignore_line(*_line: str, log: AuditLog) -> None:
    pass


def _status(gate: Gate, path: str, host: str, method: str = "GET") -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "http", "headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(gate(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("path", ["/picture/lab/door.jpg", "/fleet/live", "/api/v1/cameras", "/", "/login/x"])
@pytest.mark.parametrize("host", ["localhost:1/static/?", "localhost:1/login?", "localhost:1/health?"])
def test_the_gate_reads_no_path_from_the_host_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, host: str
) -> None:
    # Starlette builds URLs like this up to 1.0.0.
    monkeypatch.setattr(
        HTTPConnection, "url", property(lambda self: URL(f"http://{self.headers['host']}{self.scope['path']}"))
    )
    write_user(tmp_path / "users", "anna", Right.ADMIN, "a long password")
    rights = RouteRights([OpenMount("/static", _page)])
    gate = Gate(_page, Logins(LoginMethods(Users(tmp_path / "users")), _ignore_line), rights)
    assert _status(gate, path, host) in (303, 401)
    assert _status(gate, "/static/console.css", host) == 200


def test_a_request_without_a_session_has_no_right() -> None:
    request = Request({"type": "http", "state": {"session": None}})
    assert [right for right in Right if may(request, right)] == []
