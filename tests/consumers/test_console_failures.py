"""Answers to unexpected errors of handlers, to invalid JSON, and without a database."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy.exc import InternalError, OperationalError
from starlette.requests import Request
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from consumers.console.access.gate import POLICY
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.data.fleet import Fleet
from consumers.console.data.store import Store
from consumers.console.failures import EVERY_S, Failures
from consumers.console.web import make_app
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, verdict

AWAY = "the recorder's database does not respond"
ALERT = "ab" * 16
PASSWORD = "long enough to guess at"
OWN = "http://127.0.0.1"


def test_an_unexpected_error_is_answered_with_the_gates_headers_and_logged_once(
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


@pytest.mark.parametrize(
    "failure",
    [
        OperationalError("select", {}, ConnectionError("refused")),
        InternalError("insert", {}, ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction")),
    ],
)
def test_without_the_consoles_own_database_a_request_is_rejected_in_one_line_and_logged(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    browser = console.browser()
    monkeypatch.setattr(Store, "newest_operations", fail)
    with capture_logs() as logs:
        answer = browser.get("/api/v1/operations")
    expected = {"error": "the console's database does not respond: see the console's log"}
    assert (answer.status_code, answer.json()) == (503, expected)
    assert [each["event"] for each in logs] == ["request_failed"]


def test_each_kind_of_error_is_logged_once_a_minute_with_the_number_of_unlogged_ones() -> None:
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
def test_json_that_is_too_deep_or_has_a_lone_surrogate_is_rejected(console: ConsoleRig, body: bytes) -> None:
    answer = console.browser().post(
        "/api/v1/dead-letters/replay", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (400, {"error": "body: expected a JSON object"})


@pytest.mark.parametrize(
    ("page", "back"),
    [
        (f"{OWN}/camera/lab/door?range=day&x=1", "/camera/lab/door?range=day&amp;x=1"),
        (f"{OWN}//evil.example", "/evil.example"),
        ("http://evil.example/", "/"),
        ("http://[", "/"),
        ("", "/"),
    ],
)
def test_a_refused_form_shows_a_page_with_the_reason_and_the_way_back(
    console: ConsoleRig, page: str, back: str
) -> None:
    answer = console.browser().post(
        "/fleet/forget", data={"camera": "<lab>"}, headers={"accept": "text/html,*/*;q=0.8", "referer": page}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "csrf: expected the token of this page. Reload the page." in answer.text
    assert f'<a class="button" href="{back}">Back</a>' in answer.text
    assert answer.headers["content-security-policy"]


def test_an_address_without_a_page_shows_the_reason_as_text(console: ConsoleRig) -> None:
    answer = console.browser().get("/<b>gone", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "path: expected one of this console, got /&lt;b&gt;gone" in answer.text
    refused = console.browser().put("/alerts", headers={"accept": "text/html"})
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/gone", {"accept": "*/*"}),
        ("/gone", {"accept": "image/avif,image/webp,*/*;q=0.8"}),
        ("/gone", {"accept": "text/html", "hx-request": "true"}),
        ("/api/v1/gone", {"accept": "text/html"}),
    ],
)
def test_programs_scripts_and_pictures_get_a_refusal_as_json(
    console: ConsoleRig, path: str, headers: dict[str, str]
) -> None:
    answer = console.browser().get(path, headers=headers)
    assert (answer.status_code, answer.json()) == (404, {"error": f"path: expected one of this console, got {path}"})


@pytest.fixture
def cut_off(tmp_path: Path) -> Iterator[ConsoleRig]:
    """Yield a console whose database refuses connections."""
    console = ConsoleRig(tmp_path, changed={"database": "postgresql+psycopg://x@127.0.0.1:1/x"})
    console.show([verdict(0)])
    yield console
    console.close()


@pytest.mark.parametrize(
    ("path", "claim"),
    [
        ("/alerts", "There are no open alerts"),
        ("/dead-letters?reason=bad_tag", "No payload was rejected"),
        ("/quarantine", "No frame is in quarantine"),
        ("/sighting-rules", "There is no rule"),
        (f"/camera/{CAMERA}", "None. This list shows"),
    ],
)
def test_without_the_database_a_page_shows_the_reason_and_no_empty_list(
    cut_off: ConsoleRig, path: str, claim: str
) -> None:
    page = cut_off.browser().get(path)
    assert page.status_code == 200
    assert AWAY.capitalize() in unescape(page.text)
    assert claim not in page.text


def test_without_the_database_other_pages_and_charts_show_the_rest(cut_off: ConsoleRig) -> None:
    browser = cut_off.browser()
    assert browser.get("/models").status_code == 200
    assert AWAY.capitalize() in unescape(browser.get("/system").text)
    assert AWAY in browser.get("/system/history").json()["note"]
    assert browser.get(f"/camera/{CAMERA}/history").json()["alerts"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/alerts",
        "/api/v1/dead-letters",
        "/api/v1/sighting-rules",
        "/api/v1/export/verdicts.csv",
        "/api/v1/export/verdicts.parquet",
        f"/alerts/{ALERT}",
        f"/alerts/{ALERT}.png",
    ],
)
def test_without_the_database_a_request_is_rejected_in_one_line_and_not_logged(cut_off: ConsoleRig, path: str) -> None:
    with capture_logs() as logs:
        answer = cut_off.browser().get(path)
    assert (answer.status_code, answer.json()) == (503, {"error": AWAY})
    assert logs == []


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (f"cameras/{CAMERA}/mute", {"for": "1h", "reason": "repairs"}),
        (f"cameras/{CAMERA}/mute", {"for": "end"}),
        ("sighting-rules", {"cameras": "lab/*", "wanted": "stop"}),
        ("sighting-rules/remove", {"cameras": "lab/*", "wanted": "stop"}),
    ],
)
def test_without_the_database_a_change_is_answered_with_status_503(
    cut_off: ConsoleRig, path: str, sent: dict[str, str]
) -> None:
    answer = cut_off.browser().post(f"/api/v1/{path}", json=sent)
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("the recorder's database: expected it to accept the change")
    assert cut_off.context.store.newest_operations() == []


def test_without_the_database_the_page_of_sighting_rules_shows_why_none_is_saved(cut_off: ConsoleRig) -> None:
    sent = {"csrf": cut_off.csrf(), "cameras": "lab/*", "wanted": "stop"}
    for path in ("/sighting-rules", "/sighting-rules/remove"):
        answer = cut_off.browser().post(path, data=sent)
        assert answer.status_code == 303
        assert "expected+it+to+accept+the+change" in answer.headers["location"]


def test_over_https_the_answer_enforces_https_and_the_cookie_is_bound_to_the_host(tmp_path: Path) -> None:
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
