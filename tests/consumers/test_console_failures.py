"""Defects of handlers and bodies that are no JSON: answers with the gate's headers, and the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from consumers.console.access.gate import POLICY
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.data.fleet import Fleet
from consumers.console.failures import EVERY_S, Failures
from consumers.console.web import make_app
from tests.consumers.console_rig import ConsoleRig

PASSWORD = "long enough to guess at"


def test_a_defect_is_answered_with_the_gates_headers_and_logged_once(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Fleet, "view", fail)
    with capture_logs() as logs:
        browser = console.browser()
        answers = [browser.get(path) for path in ("/", "/?page=2", "/")]
    assert {each.status_code for each in answers} == {500}
    assert answers[0].headers["content-security-policy"] == POLICY
    assert answers[0].headers["x-content-type-options"] == "nosniff"
    (logged,) = [each for each in logs if each["event"] == "request_failed"]
    assert (logged["log_level"], logged["path"], str(logged["exc_info"])) == ("error", "/", "a defect")


def test_each_kind_of_defect_is_logged_once_a_minute_with_the_number_of_those_between() -> None:
    now_s = [0.0]
    failures = Failures(lambda: now_s[0])
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})

    def fail(kind: type[Exception]) -> None:
        try:
            raise kind("a defect")
        except Exception as error:
            failures.log(request, error)

    with capture_logs() as logs:
        for kind in (ValueError, ValueError, KeyError, ValueError):
            fail(kind)
        now_s[0] += EVERY_S
        fail(ValueError)
    assert [(type(each["exc_info"]), each["unlogged"]) for each in logs] == [
        (ValueError, 0),
        (KeyError, 0),
        (ValueError, 2),
    ]


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"reason": "\\ud800"}', b'{"reason": "bad_tag", "\\udfff": 1}'])
def test_json_that_is_too_deep_or_holds_half_a_character_is_refused(console: ConsoleRig, body: bytes) -> None:
    answer = console.browser().post(
        "/api/v1/dead-letters/replay", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (400, {"error": "reason: expected a text"})


def test_by_https_browsers_are_bound_to_it_and_the_session_to_this_host(tmp_path: Path) -> None:
    write_user(tmp_path / "users", "anna", Right.VIEWER, PASSWORD)
    plain = ConsoleRig(tmp_path, users=tmp_path / "users")
    try:
        assert "strict-transport-security" not in plain.browser().get("/login").headers
        browser = TestClient(make_app(plain.context), base_url="https://127.0.0.1", follow_redirects=False)
        answer = browser.post("/login", data={"name": "anna", "password": PASSWORD})
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["set-cookie"].startswith("__Host-pointillist=")
        assert "; Path=/; " in answer.headers["set-cookie"]
        assert "; Secure" in answer.headers["set-cookie"]
        assert browser.get("/").status_code == 200
        session = browser.cookies["__Host-pointillist"]
        browser.cookies.clear()
        assert browser.get("/", headers={"cookie": f"pointillist={session}"}).status_code == 303
    finally:
        plain.close()
