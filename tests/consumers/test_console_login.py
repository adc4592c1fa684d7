"""Logins by password, their log, their cookies, and the file of users."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import scrypt
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx2 import Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from consumers.console.access.browsers import COOKIE as BROWSER_COOKIE
from consumers.console.access.cookies import COOKIE
from consumers.console.access.guesses import Attempt, TryLaterError
from consumers.console.access.logins import MOST_LINES, PASSWORD, LoginMethods, Logins
from consumers.console.access.rights import Person, Right, Roles
from consumers.console.access.sessions import MOST, MOST_OF_ONE
from consumers.console.access.users import Users, check_password, read_users, write_user
from consumers.console.data import store as console_store
from consumers.console.role import open_context
from consumers.database.console_store import AuditLog
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
    console = ConsoleRig(tmp_path, users=users)
    yield console
    console.close()


def logged_in(rig: ConsoleRig, right: Right) -> TestClient:
    browser = rig.browser()
    answer = browser.post("/login", data={"name": right.value, "password": PASSWORDS[right], "then": "/alerts"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")
    return browser


def csrf(rig: ConsoleRig, browser: TestClient) -> str:
    session = rig.context.sessions.find(browser.cookies[COOKIE])
    assert session is not None
    return session.csrf


def test_visitors_without_a_login_see_no_page(rig: ConsoleRig) -> None:
    browser = rig.browser()
    assert browser.get("/").headers["location"] == "/login?then=/"
    assert browser.get("/picture/lab/door.jpg").status_code == 303
    assert browser.get("/fleet/live", headers={"hx-request": "true"}).status_code == 401
    assert browser.get("/static/console.css").status_code == 200
    assert browser.get("/login").status_code == 200


def test_wrong_passwords_delay_other_browsers_but_not_one_with_an_earlier_login(
    rig: ConsoleRig,
) -> None:
    known, guesser = logged_in(rig, Right.ADMIN), rig.browser()
    for _ in range(5):
        assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 403
    rejected = guesser.post("/login", data={"name": "admin", "password": PASSWORDS[Right.ADMIN]})
    assert (rejected.status_code, rejected.headers["retry-after"]) == (429, "1")
    assert "Too many attempts. Try again in 1 s." in rejected.text
    assert COOKIE not in guesser.cookies
    program = guesser.get("/api/v1/cameras", auth=("admin", PASSWORDS[Right.ADMIN]))
    assert (program.status_code, program.headers["retry-after"]) == (429, "1")
    known.post("/logout", data={"csrf": csrf(rig, known)})
    assert known.get("/").status_code == 303
    fields = {"name": "admin", "password": PASSWORDS[Right.ADMIN]}
    assert known.post("/login", data=fields).status_code == 303
    assert rig.browser().post("/login", data={"name": "viewer", "password": PASSWORDS[Right.VIEWER]}).status_code == 303


def test_the_cookie_of_a_known_browser_grants_nothing_and_is_for_one_user(rig: ConsoleRig) -> None:
    mark = logged_in(rig, Right.VIEWER).cookies[BROWSER_COOKIE]
    guesser = rig.browser()
    guesser.cookies.set(BROWSER_COOKIE, mark, domain="127.0.0.1", path="/login")
    assert guesser.get("/").status_code == 303
    for _ in range(5):
        assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 403
    assert guesser.post("/login", data={"name": "admin", "password": "no"}).status_code == 429


def test_logins_failures_and_logouts_are_logged_and_counted(rig: ConsoleRig) -> None:
    browser = logged_in(rig, Right.VIEWER)
    browser.post("/logout", data={"csrf": csrf(rig, browser)})
    stranger = rig.browser()
    stranger.post("/login", data={"name": "hunter2", "password": "no"})
    for _ in range(3):
        assert stranger.get("/api/v1/cameras", auth=("operator", PASSWORDS[Right.OPERATOR])).status_code == 200
    for _ in range(6):
        stranger.post("/login", data={"name": "admin", "password": "no"})
    address = "testclient"
    assert [
        (each.who, each.what, each.subject, each.detail, each.outcome) for each in rig.context.store.newest_operations()
    ][::-1] == [
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


async def test_a_flood_of_wrong_passwords_adds_few_lines_to_the_audit_log(rig: ConsoleRig, users: Path) -> None:
    lines: list[str] = []
    now_s = [0.0]

    async def note(*line: str, log: AuditLog) -> None:
        assert log is AuditLog.FAILED_LOGINS
        lines.append(line[-1])

    async def disconnected() -> None:
        await asyncio.Event().wait()

    logins = Logins(LoginMethods(Users(users)), note, lambda: now_s[0])
    for _ in range(1_000):
        with suppress(TryLaterError):
            assert await logins.by_form(Attempt("192.0.2.1", "admin"), "no", disconnected) is None
    assert len(lines) == MOST_LINES
    now_s[0] += 60
    await logins.sum_up()
    assert lines[-1] == f"{1_000 - MOST_LINES} more failed logins"
    assert sum(logins.counts.values()) == 1_000
    logins.close()


def test_failed_logins_evict_no_line_of_a_user_from_the_audit_log(
    rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_store, "MOST_OPERATIONS", 3)
    stranger, store = rig.browser(), rig.context.store
    store.note("anna", "revoke", "lab/door", "", "done")
    for _ in range(5):
        assert stranger.get("/api/v1/cameras", headers={"Authorization": "Bearer pointillist_guess"}).status_code == 401
    assert [each.who for each in store.newest_operations()] == ["unknown"] * 3 + ["anna"]
    assert [each.who for each in store.newest_operations(limit=2)] == ["unknown", "anna"]


async def test_logins_and_logouts_of_one_person_evict_no_line_and_no_session_of_another(
    rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_store, "MOST_OPERATIONS", 3)
    rig.context.store.note("anna", "revoke", "lab/door", "", "done")
    admin = rig.context.sessions.begin(Person("anna", Roles.parse("admin")))
    viewers = [rig.context.sessions.begin(Person("viewer", Roles.parse("viewer"))) for _ in range(MOST + 1)]
    assert rig.context.sessions.find(admin) is not None
    assert [rig.context.sessions.find(each) is not None for each in viewers] == [
        number > MOST - MOST_OF_ONE for number in range(MOST + 1)
    ]
    logins = rig.context.logins
    for _ in range(5):
        await logins._accepted(Person("viewer", Roles.parse("viewer")), Attempt("192.0.2.1", "viewer"), "page")
        await logins.log_out(rig.context.sessions.passing(Person("viewer", Roles.parse("viewer"))), "192.0.2.1")
    assert {each.who for each in rig.context.store.newest_operations()} == {"viewer", "anna"}
    of_provider = [
        rig.context.sessions.begin(Person("anna", Roles.parse("admin")), subject=f"subject-{number}")
        for number in range(MOST_OF_ONE + 1)
    ]
    assert all(rig.context.sessions.find(each) is not None for each in (admin, *of_provider))


async def test_a_login_is_possible_while_the_audit_log_cannot_be_written(users: Path) -> None:
    async def note(*_line: str, log: AuditLog) -> None:
        raise OSError("the disk is full")

    async def disconnected() -> None:
        await asyncio.Event().wait()

    logins = Logins(LoginMethods(Users(users)), note)
    assert await logins.by_form(Attempt("192.0.2.1", "admin"), PASSWORDS[Right.ADMIN], disconnected) is not None
    logins.close()


def test_the_cookie_is_for_pages_of_the_same_site_only(rig: ConsoleRig) -> None:
    answer = rig.browser().post("/login", data={"name": "viewer", "password": PASSWORDS[Right.VIEWER]})
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]


def test_a_login_redirects_to_no_other_host(rig: ConsoleRig) -> None:
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
    """Return the path to which the login page would redirect."""
    address = urlsplit(answer.headers["location"])
    assert (answer.status_code, address.path) == (303, "/login")
    return parse_qs(address.query)["then"][0]


def test_a_login_redirects_to_the_requested_page_with_its_query(rig: ConsoleRig) -> None:
    browser, page = rig.browser(), "/alerts?state=closed&camera=lab%2Fdoor"
    then = then_of(browser.get(page))
    fields = {"name": "viewer", "password": PASSWORDS[Right.VIEWER], "then": then}
    assert browser.post("/login", data=fields).headers["location"] == page
    assert browser.get(page).status_code == 200


@pytest.mark.parametrize(
    ("page", "then"),
    [
        ("http://127.0.0.1/quarantine?page=2", "/quarantine?page=2"),
        ("http://127.0.0.1//evil.example", "/evil.example"),  # no address of another host
        ("http://evil.example/127.0.0.1/", "/"),
        ("http://evil.example/http://127.0.0.1/", "/"),
        ("http://127.0.0.1.evil.example/", "/"),
        ("http://x@127.0.0.1/", "/"),
        ("http://[", "/"),
        ("", "/"),
    ],
)
def test_a_login_after_a_form_redirects_to_the_page_of_the_form(rig: ConsoleRig, page: str, then: str) -> None:
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
def test_a_form_from_a_page_of_another_site_changes_nothing(rig: ConsoleRig, headers: dict[str, str]) -> None:
    browser = logged_in(rig, Right.OPERATOR)
    fields = {"camera": "lab/door", "csrf": csrf(rig, browser)}
    assert browser.post("/fleet/forget", data=fields, headers=headers).status_code == 403
    assert browser.post("/fleet/forget", data=fields).status_code == 404


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_form_without_the_sessions_token_changes_nothing(rig: ConsoleRig, token: str) -> None:
    browser = logged_in(rig, Right.OPERATOR)
    answer = browser.post("/fleet/forget", data={"camera": "lab/door", "csrf": token})
    assert (answer.status_code, answer.json()) == (
        403,
        {"error": "csrf: expected the token of this page. Reload the page."},
    )


def test_the_users_file_has_hashed_passwords_and_is_readable_only_by_its_owner(users: Path) -> None:
    assert users.stat().st_mode & 0o077 == 0
    text = users.read_text()
    assert not [password for password in PASSWORDS.values() if password in text]
    known = read_users(users)
    assert check_password(known, "admin", PASSWORDS[Right.ADMIN]) == known["admin"]
    assert check_password(known, "admin", PASSWORDS[Right.VIEWER]) is None
    assert check_password(known, "nobody", PASSWORDS[Right.ADMIN]) is None


@pytest.mark.usefixtures("costly_passwords")
def test_passwords_keep_their_costly_hash(tmp_path: Path) -> None:
    file, digest = tmp_path / "users", scrypt(b"ten letters", salt=bytes(16), n=2**14, r=8, p=1, dklen=32)
    file.write_text(f"vera:viewer:{bytes(16).hex()}:{digest.hex()}\n")
    file.chmod(0o600)
    assert check_password(read_users(file), "vera", "ten letters") is not None


def test_a_users_file_of_another_owner_may_be_readable_by_the_group_only(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "users"
    mounted.write_bytes(users.read_bytes())
    mounted.chmod(0o440)
    with pytest.raises(ConfigError, match=r"open to others"):
        read_users(mounted)
    other_user = mounted.stat().st_uid + 1
    monkeypatch.setattr(os, "getuid", lambda: other_user)
    assert read_users(mounted).keys() == read_users(users).keys()
    for mode in (0o460, 0o444):
        mounted.chmod(mode)
        with pytest.raises(ConfigError, match=r"open to others"):
            read_users(mounted)


def test_an_invalid_users_file_is_rejected_in_one_line(tmp_path: Path) -> None:
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


def test_a_users_file_is_read_again_after_its_mode_is_corrected(users: Path, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_bytes(users.read_bytes())
    file.chmod(0o600)
    found = Users(file)
    known = found()
    fresh = tmp_path / "fresh"  # editors replace a file by a new one, with the usual mode
    fresh.write_bytes(users.read_bytes())
    fresh.chmod(0o644)
    fresh.replace(file)
    with capture_logs() as logs:
        assert (found(), found()) == ({}, {})
    assert [each["event"] for each in logs] == ["file_not_read"]
    file.chmod(0o600)
    assert found() == known


def test_a_console_on_a_public_address_does_not_start_without_users(rig: ConsoleRig) -> None:
    settings = rig.context.settings.model_copy(update={"users": None, "http": ("0.0.0.0", 8080)})
    with pytest.raises(ConfigError, match="users is missing: expected a file of users where others reach the console"):
        open_context(settings, CONSOLE_KEYS)
