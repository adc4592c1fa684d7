"""A console on loopback without logins: visitors read, and the owner's link gives all other rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.console.access.cookies import COOKIE
from consumers.console.access.owner import owner_link
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.settings import JobSettings
from schemas.errors import ConfigError, StateError
from tests.consumers.console_rig import OWNER, ConsoleRig
from tests.consumers.jobs_rig import launcher


def link_path(rig: ConsoleRig) -> str:
    return owner_link("http://127.0.0.1/", rig.folder / "owner.token").removeprefix("http://127.0.0.1")


def test_visitors_read_every_page_and_change_nothing(bare_rig: ConsoleRig) -> None:
    visitor = bare_rig.visitor()
    for page in ("/", "/alerts", "/models", "/system", "/api/v1/cameras"):
        assert visitor.get(page).status_code == 200
    rejected = visitor.post("/api/v1/cameras/lab/door/command", json={"fps": 1})
    assert rejected.status_code == 403
    assert rejected.json() == {
        "error": "user: expected the right `operator`, got `viewer`. Open the link that `pointillist up` or "
        "`pointillist status` shows."
    }
    assert visitor.post("/fleet/forget", data={"camera": "lab/door", "csrf": bare_rig.csrf()}).status_code == 403


def test_the_link_logs_a_browser_in_as_the_owner(bare_rig: ConsoleRig) -> None:
    browser = bare_rig.visitor()
    opened = browser.get(link_path(bare_rig))
    assert opened.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/">' in opened.text
    assert "HttpOnly; SameSite=Strict" in opened.headers["set-cookie"]
    assert browser.post("/fleet/forget", data={"camera": "lab/door", "csrf": bare_rig.csrf()}).status_code == 404
    line = bare_rig.context.store.newest_operations()[0]
    assert (line.who, line.what, line.detail, line.outcome) == (OWNER, "login", "link", "logged in")


def test_consoles_on_two_ports_of_a_host_have_separate_cookies(bare_rig: ConsoleRig) -> None:
    cookies = [
        bare_rig.visitor().get(link_path(bare_rig), headers={"host": host}).headers["set-cookie"].partition("=")[0]
        for host in ("127.0.0.1", "127.0.0.1:8080", "127.0.0.1:9090", "[::1]", "[::1]:9090")
    ]
    assert cookies == ["pointillist", "pointillist-8080", "pointillist-9090", "pointillist", "pointillist-9090"]


def test_programs_of_the_owner_log_in_with_the_token_of_the_file(bare_rig: ConsoleRig) -> None:
    token = (bare_rig.folder / "owner.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    answer = bare_rig.visitor().post("/api/v1/dead-letters/replay", json={"reason": "none"}, headers=headers)
    assert answer.status_code == 503, "accepted; the dead letters of this rig cannot be read"
    assert bare_rig.context.store.newest_operations()[0].who == OWNER


@pytest.mark.parametrize("token", ["", "guess", "ü"])
def test_a_wrong_link_is_rejected_and_logged(bare_rig: ConsoleRig, token: str) -> None:
    visitor = bare_rig.visitor()
    answer = visitor.get("/login/link", params={"token": token})
    assert answer.status_code == 403
    assert "This link is invalid or expired. Open the link that `pointillist up` or" in answer.text
    assert COOKIE not in visitor.cookies
    assert bare_rig.context.store.newest_operations()[0].outcome == "wrong or old link"


def test_the_token_file_is_readable_only_by_its_owner_and_new_at_each_start(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path)
    file, old = rig.folder / "owner.token", link_path(rig)
    assert file.stat().st_mode & 0o777 == 0o600
    rig.close()
    restarted = ConsoleRig(rig.folder)
    try:
        assert link_path(restarted) != old
        assert restarted.visitor().get(old).status_code == 403
    finally:
        restarted.close()


def test_a_second_console_keeps_the_token_of_the_running_one(bare_rig: ConsoleRig) -> None:
    old = link_path(bare_rig)
    with pytest.raises(StateError, match="expected a file that no other console uses"):
        ConsoleRig(bare_rig.folder)
    write_user(bare_rig.folder / "users", "anna", Right.ADMIN, "a long password")
    ConsoleRig(bare_rig.folder, users=bare_rig.folder / "users").close()
    assert link_path(bare_rig) == old
    assert bare_rig.visitor().get(old).status_code == 200


def test_a_console_that_cannot_start_keeps_the_token(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path)
    old = link_path(rig)
    rig.close()
    with pytest.raises(ConfigError, match=r"jobs\.folder"):
        ConsoleRig(rig.folder, jobs=JobSettings(folder=Path("/proc/none")), launch=launcher("hangs"))
    assert link_path(rig) == old


def test_a_console_with_users_has_no_link(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path)
    old = link_path(rig)
    rig.close()
    write_user(rig.folder / "users", "anna", Right.ADMIN, "a long password")
    restarted = ConsoleRig(rig.folder, users=rig.folder / "users")
    try:
        assert owner_link("http://127.0.0.1/", rig.folder / "owner.token") == "http://127.0.0.1/"
        assert restarted.visitor().get(old).status_code == 403
        assert restarted.visitor().get("/").status_code == 303
    finally:
        restarted.close()


def test_without_a_token_file_visitors_only_read(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path, changed={"owner_file": None})
    try:
        visitor = rig.visitor()
        assert visitor.get("/").status_code == 200
        assert visitor.get("/login/link?token=").status_code == 403
        assert visitor.post("/api/v1/dead-letters/replay", json={"reason": "none"}).status_code == 403
    finally:
        rig.close()
