"""Who may see and do what at the console."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.cookies import COOKIE
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.logins import MOST_LINES, PASSWORD, LoginMethods, Logins
from consumers.console.access.rights import Right
from consumers.console.access.users import Users, check_password, read_users, write_user
from consumers.console.data import store as console_store
from consumers.console.role import open_context
from schemas.errors import ConfigError
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig

PASSWORDS = {Right.VIEWER: "ten letters", Right.OPERATOR: "eleven letters", Right.ADMIN: "twelve letters"}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "users"
    for right, password in PASSWORDS.items():
        write_user(file, right.value, right, password)
    return file


@pytest.fixture
def rig(tmp_path: Path, users: Path) -> Iterator[ConsoleRig]:
    made = ConsoleRig(tmp_path, users=users)
    yield made
    made.close()


def logged_in(rig: ConsoleRig, right: Right) -> TestClient:
    browser = rig.browser()
    answer = browser.post("/login", data={"name": right.value, "password": PASSWORDS[right], "then": "/alerts"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")
    return browser


def csrf(rig: ConsoleRig, browser: TestClient) -> str:
    session = rig.context.sessions.find(browser.cookies[COOKIE])
    assert session is not None
    return session.csrf


def test_nothing_is_shown_to_who_has_not_logged_in(rig: ConsoleRig) -> None:
    browser = rig.browser()
    assert browser.get("/").headers["location"] == "/login?then=/"
    assert browser.get("/picture/lab/door.jpg").status_code == 303
    assert browser.get("/fleet/live", headers={"hx-request": "true"}).status_code == 401
    assert browser.get("/static/console.css").status_code == 200
    assert browser.get("/login").status_code == 200


def test_after_some_wrong_passwords_a_browser_waits_but_one_that_the_user_has_logged_in_from_does_not(
    rig: ConsoleRig,
) -> None:
    known, guesser = logged_in(rig, Right.ADMIN), rig.browser()
    for _ in range(5):
        assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 403
    refused = guesser.post("/login", data={"name": "admin", "password": PASSWORDS[Right.ADMIN]})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "Too many attempts. Try again in 1 s." in refused.text
    assert COOKIE not in guesser.cookies
    program = guesser.get("/api/v1/cameras", auth=("admin", PASSWORDS[Right.ADMIN]))
    assert (program.status_code, program.headers["retry-after"]) == (429, "1")
    known.post("/logout", data={"csrf": csrf(rig, known)})
    assert known.get("/").status_code == 303
    fields = {"name": "admin", "password": PASSWORDS[Right.ADMIN]}
    assert known.post("/login", data=fields).status_code == 303
    assert rig.browser().post("/login", data={"name": "viewer", "password": PASSWORDS[Right.VIEWER]}).status_code == 303


def test_the_mark_of_a_browser_opens_nothing_and_is_of_one_user(rig: ConsoleRig) -> None:
    mark = logged_in(rig, Right.VIEWER).cookies[BROWSER_COOKIE]
    guesser = rig.browser()
    guesser.cookies.set(BROWSER_COOKIE, mark, domain="127.0.0.1", path="/login")
    assert guesser.get("/").status_code == 303
    for _ in range(5):
        assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 403
    assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 429


def test_logins_and_their_failures_and_logouts_are_in_the_audit_log_and_counted(rig: ConsoleRig) -> None:
    browser = logged_in(rig, Right.VIEWER)
    browser.post("/logout", data={"csrf": csrf(rig, browser)})
    stranger = rig.browser()
    stranger.post("/login", data={"name": "hunter2", "password": "no"})
    for _ in range(3):
        assert stranger.get("/api/v1/cameras", auth=("operator", PASSWORDS[Right.OPERATOR])).status_code == 200
    for _ in range(6):
        stranger.post("/login", data={"name": "admin", "password": "no"})
    address = "testclient"
    assert [(each.who, each.what, each.subject, each.detail, each.outcome) for each in rig.context.store.noted()][
        ::-1
    ] == [
        ("viewer", "login", address, "page", "logged in"),
        ("viewer", "logout", address, "page", "logged out"),
        ("unknown", "login", address, "page", "wrong password"),
        ("operator", "login", address, "HTTP Basic", "logged in"),
        *[("admin", "login", address, "page", "wrong password")] * 5,
        ("admin", "login", address, "page", "rejected: too many attempts, wait 1 s"),
    ]
    assert rig.context.logins.counts == {
        (PASSWORD, "accepted"): 2,
        (PASSWORD, "logout"): 1,
        (PASSWORD, "wrong"): 6,
        (PASSWORD, "refused"): 1,
    }


async def test_a_flood_of_wrong_passwords_fills_no_audit_log(rig: ConsoleRig, users: Path) -> None:
    lines: list[str] = []
    now_s = [0.0]

    async def note(*line: str, failed_login: bool) -> None:
        assert failed_login
        lines.append(line[-1])

    async def gone() -> None:
        await asyncio.Event().wait()

    logins = Logins(LoginMethods(Users(users)), note, lambda: now_s[0])
    for _ in range(1_000):
        with suppress(TryLaterError):
            assert await logins.by_form(Attempt("192.0.2.1", "admin"), "no", gone) is None
    assert len(lines) == MOST_LINES
    now_s[0] += 60
    await logins.sum_up()
    assert lines[-1] == f"{1_000 - MOST_LINES} more failed logins"
    assert sum(logins.counts.values()) == 1_000
    logins.close()


def test_failed_logins_push_no_persons_line_out_of_the_audit_log(
    rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_store, "MOST_OPERATIONS", 3)
    stranger, store = rig.browser(), rig.context.store
    store.note("anna", "revoke", "lab/door", "", "done")
    for _ in range(5):
        assert stranger.get("/api/v1/cameras", headers={"Authorization": "Bearer pointillist_guess"}).status_code == 401
    assert [each.who for each in store.noted()] == ["unknown"] * 3 + ["anna"]
    assert [each.who for each in store.noted(limit=2)] == ["unknown", "anna"]


async def test_a_login_is_possible_while_the_audit_log_takes_nothing(users: Path) -> None:
    async def note(*_line: str, failed_login: bool) -> None:
        raise OSError("the disk is full")

    async def gone() -> None:
        await asyncio.Event().wait()

    logins = Logins(LoginMethods(Users(users)), note)
    assert await logins.by_form(Attempt("192.0.2.1", "admin"), PASSWORDS[Right.ADMIN], gone) is not None
    logins.close()


def test_the_cookie_is_for_our_own_pages_alone(rig: ConsoleRig) -> None:
    answer = rig.browser().post("/login", data={"name": "viewer", "password": PASSWORDS[Right.VIEWER]})
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]


def test_who_logs_in_is_sent_to_no_other_host(rig: ConsoleRig) -> None:
    for then in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/a\\..\\/evil.example",
    ):
        fields = {"name": "viewer", "password": PASSWORDS[Right.VIEWER], "then": then}
        assert rig.browser().post("/login", data=fields).headers["location"] == "/"


def then_of(answer: Response) -> str:
    """The place after the login to which a stranger is sent."""
    address = urlsplit(answer.headers["location"])
    assert (answer.status_code, address.path) == (303, "/login")
    return parse_qs(address.query)["then"][0]


def test_a_login_leads_to_the_page_that_was_asked_for_with_its_query(rig: ConsoleRig) -> None:
    browser, page = rig.browser(), "/alerts?state=closed&camera=lab%2Fdoor"
    then = then_of(browser.get(page))
    fields = {"name": "viewer", "password": PASSWORDS[Right.VIEWER], "then": then}
    assert browser.post("/login", data=fields).headers["location"] == page
    assert browser.get(page).status_code == 200


@pytest.mark.parametrize(
    ("page", "then"),
    [
        ("http://127.0.0.1/quarantine?page=2", "/quarantine?page=2"),
        ("http://127.0.0.1//evil.example", "//evil.example"),  # the login leads to no such place
        ("http://evil.example/127.0.0.1/", "/"),
        ("http://evil.example/http://127.0.0.1/", "/"),
        ("http://127.0.0.1.evil.example/", "/"),
        ("http://x@127.0.0.1/", "/"),
        ("http://[", "/"),
        ("", "/"),
    ],
)
def test_a_login_after_a_form_leads_to_the_page_of_the_form(rig: ConsoleRig, page: str, then: str) -> None:
    assert then_of(rig.browser().post("/jobs/repair", data={"csrf": "old"}, headers={"referer": page})) == then


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://["},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_from_somebody_elses_page_changes_nothing(rig: ConsoleRig, headers: dict[str, str]) -> None:
    browser = logged_in(rig, Right.OPERATOR)
    fields = {"camera": "lab/door", "csrf": csrf(rig, browser)}
    assert browser.post("/fleet/forget", data=fields, headers=headers).status_code == 403
    assert browser.post("/fleet/forget", data=fields).status_code == 409


@pytest.mark.parametrize("said", ["", "wrong"])
def test_a_form_without_the_sessions_token_changes_nothing(rig: ConsoleRig, said: str) -> None:
    browser = logged_in(rig, Right.OPERATOR)
    answer = browser.post("/fleet/forget", data={"camera": "lab/door", "csrf": said})
    assert (answer.status_code, answer.json()) == (
        403,
        {"error": "csrf: expected the token of this page. Reload the page."},
    )


def test_users_are_kept_hashed_and_for_their_owner_only(users: Path) -> None:
    assert users.stat().st_mode & 0o077 == 0
    text = users.read_text()
    assert not [password for password in PASSWORDS.values() if password in text]
    known = read_users(users)
    assert check_password(known, "admin", PASSWORDS[Right.ADMIN]) == known["admin"]
    assert check_password(known, "admin", PASSWORDS[Right.VIEWER]) is None
    assert check_password(known, "nobody", PASSWORDS[Right.ADMIN]) is None


def test_users_that_a_cluster_lays_down_may_be_read_by_our_group_and_by_nobody_else(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_down = tmp_path / "users"
    laid_down.write_bytes(users.read_bytes())
    laid_down.chmod(0o440)
    with pytest.raises(ConfigError, match=r"open to others"):
        read_users(laid_down)
    somebody = laid_down.stat().st_uid + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    assert read_users(laid_down).keys() == read_users(users).keys()
    for mode in (0o460, 0o444):
        laid_down.chmod(mode)
        with pytest.raises(ConfigError, match=r"open to others"):
            read_users(laid_down)


def test_a_users_file_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "users"
    with pytest.raises(ConfigError, match=r"users: expected a file of users, got No such file"):
        read_users(file)
    file.write_text("anna:king:00:00\n")
    with pytest.raises(ConfigError, match=r"open to others\. Run chmod 600"):
        read_users(file)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"users, line 1: expected name:roles:salt:hash with roles like viewer"):
        read_users(file)
    for name, password in (("a b", "long enough"), ("anna", "short")):
        with pytest.raises(ConfigError, match="expected"):
            write_user(tmp_path / "new", name, Right.VIEWER, password)


def test_a_console_that_others_reach_does_not_start_without_users(rig: ConsoleRig) -> None:
    settings = rig.context.settings.model_copy(update={"users": None, "http": ("0.0.0.0", 8080)})
    with pytest.raises(ConfigError, match="users is missing: expected a file of users where others reach the console"):
        open_context(settings, CONSOLE_KEYS)
