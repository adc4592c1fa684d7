"""API tokens: created once, sent as a bearer, named in the audit log, and rejected once expired or revoked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from consumers.console.access.rights import Right
from consumers.console.access.tokens import Tokens, create_token, read_tokens, revoke_token
from consumers.console.access.users import write_user
from schemas.errors import ConfigError
from tests.consumers.console_rig import ConsoleRig

NOW_S = 1_800_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def rig(tmp_path: Path, file: Path) -> Iterator[ConsoleRig]:
    write_user(tmp_path / "users", "anna", Right.ADMIN, "a long password")
    console = ConsoleRig(tmp_path, users=tmp_path / "users", changed={"tokens": file})
    yield console
    console.close()


def get_with_token(rig: ConsoleRig, token: str, path: str = "/api/v1/cameras") -> httpx2.Response:
    return rig.visitor().get(path, headers={"authorization": f"Bearer {token}"})


def test_a_token_has_exactly_the_rights_of_its_role(rig: ConsoleRig, file: Path) -> None:
    viewer = create_token(file, "ci", Right.VIEWER, 30, "root", 4e9)
    operator = create_token(file, "robot", Right.OPERATOR, 30, "root", 4e9)
    assert get_with_token(rig, viewer).status_code == 200
    path = "/api/v1/cameras/lab/door/forget"
    rejected, accepted = (
        rig.visitor().post(path, json={}, headers={"authorization": f"Bearer {token}"}) for token in (viewer, operator)
    )
    assert rejected.status_code == 403
    assert accepted.json() == {"error": "camera: expected one of this fleet, got lab/door"}


def test_the_audit_log_names_the_token_and_its_creator(rig: ConsoleRig, file: Path) -> None:
    token = create_token(file, "robot", Right.ADMIN, 30, "root", 4e9)
    for _ in range(3):
        assert get_with_token(rig, token).status_code == 200
    headers = {"authorization": f"Bearer {token}"}
    rig.visitor().post("/api/v1/dead-letters/replay", json={"reason": "none"}, headers=headers)
    found = [(each.who, each.what, each.detail) for each in rig.context.store.newest_operations()][::-1]
    assert found == [("robot (token of root)", "login", "token"), ("robot (token of root)", "replay", "")]


@pytest.mark.parametrize("token", ["", "pointillist_guess", "pointillist_owner_guess", "\x00", "ü" * 40])
def test_a_wrong_token_is_rejected_in_one_line_and_counted(rig: ConsoleRig, file: Path, token: str) -> None:
    create_token(file, "ci", Right.VIEWER, 30, "root", 4e9)
    headers = [(b"authorization", b"Bearer " + token.encode("latin-1"))]
    answer = rig.visitor().get("/api/v1/cameras", headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"error": "token: expected a valid one, got one that is wrong, revoked or expired"}
    assert rig.context.logins.counts == {("token", "wrong"): 1}
    line = rig.context.store.newest_operations()[0]
    assert (line.who, line.detail, line.outcome) == ("unknown", "token", "wrong, revoked or expired token")


def test_a_wrong_token_is_rejected_despite_a_valid_session(rig: ConsoleRig) -> None:
    browser = rig.visitor()
    browser.post("/login", data={"name": "anna", "password": "a long password"})
    assert browser.get("/", headers={"authorization": "Bearer none"}).status_code == 401


def test_a_revoked_token_is_rejected_without_a_restart(rig: ConsoleRig, file: Path) -> None:
    token = create_token(file, "ci", Right.VIEWER, 30, "root", 4e9)
    assert get_with_token(rig, token).status_code == 200
    revoke_token(file, "ci")
    assert get_with_token(rig, token).status_code == 401


def test_a_token_expires_at_its_end(file: Path) -> None:
    now_s = NOW_S
    tokens = Tokens(file, lambda: now_s)
    text = create_token(file, "ci", Right.VIEWER, 2, "root", NOW_S)
    found = tokens.find(text)
    assert found is not None
    now_s += 2 * 86_400 - 1
    assert tokens.find(text) == found
    assert tokens.holds(found)
    now_s += 1
    assert tokens.find(text) is None
    assert not tokens.holds(found)


def test_the_file_contains_no_token_and_is_readable_only_by_its_owner(file: Path) -> None:
    text = create_token(file, "ci", Right.VIEWER, 30, "root", NOW_S)
    assert file.stat().st_mode & 0o077 == 0
    assert text.rpartition("_")[2] not in file.read_text()
    token = read_tokens(file)["ci"]
    assert (token.created_by, token.created_s, token.expires_s) == ("root", int(NOW_S), int(NOW_S) + 30 * 86_400)


def test_invalid_tokens_are_rejected_in_one_line(file: Path) -> None:
    create_token(file, "ci", Right.VIEWER, 30, "root", NOW_S)
    for name, days, complaint in (
        ("ci", 1, "a new one"),
        ("a:b", 1, "64 letters"),
        ("x", 0, "days"),
        ("x", 367, "days"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            create_token(file, name, Right.VIEWER, days, "root", NOW_S)
    with pytest.raises(ConfigError, match="expected one of"):
        revoke_token(file, "none")
    file.write_text("ci:king:root:1:2:00\n")
    with pytest.raises(ConfigError, match="tokens, line 1: expected name:roles"):
        read_tokens(file)
