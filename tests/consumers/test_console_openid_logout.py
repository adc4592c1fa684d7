"""The identity provider ends logins here by a logout token, and nobody else can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from consumers.console.access.openid import LOGOUT
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from tests.consumers import openid_provider
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.openid_provider import Provider
from tests.consumers.test_console_openid import Scene

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with openid_provider.running() as provider:
        provider.person["sid"] = "first"
        made = Scene(tmp_path, provider)
        assert made.log_in().status_code == 200
        yield made
        made.rig.close()


def send(scene: Scene, token: str) -> httpx2.Response:
    return scene.rig.visitor("192.0.2.7").post(LOGOUT, data={"logout_token": token})


def is_in(scene: Scene) -> bool:
    return scene.visitor.get("/").status_code == 200


def test_the_sessions_of_the_subject_end(scene: Scene) -> None:
    token = scene.provider.logout_token()
    assert is_in(scene)
    assert send(scene, token).status_code == 200
    assert not is_in(scene)
    assert scene.log()[-1] == ("anna", "logout", "logged out by the provider")


def test_only_the_login_of_the_sid_ends(scene: Scene) -> None:
    assert send(scene, scene.provider.logout_token(sid="second")).status_code == 200
    assert send(scene, scene.provider.logout_token(sub=None, sid="second")).status_code == 200
    assert send(scene, scene.provider.logout_token(sub="4712", sid="first")).status_code == 200
    assert is_in(scene)
    assert send(scene, scene.provider.logout_token(sub=None, sid="first")).status_code == 200
    assert not is_in(scene)


def test_logins_by_password_and_other_people_stay(scene: Scene) -> None:
    visitor = scene.rig.visitor()
    visitor.post("/login", data={"name": "carla", "password": "a long password"})
    assert send(scene, scene.provider.logout_token(sub="4712")).status_code == 200
    assert is_in(scene)
    assert send(scene, scene.provider.logout_token()).status_code == 200
    assert visitor.get("/").status_code == 200


def test_a_token_counts_once(scene: Scene) -> None:
    token = scene.provider.logout_token()
    assert send(scene, token).status_code == 200
    scene.log_in()
    again = send(scene, token)
    assert (again.status_code, "got a used one" in again.text) == (400, True)
    assert is_in(scene)


def forged(provider: Provider) -> str:
    provider.signed_by = "forged"
    return provider.logout_token()


def unsigned(provider: Provider) -> str:
    provider.signed_by = "none"
    return provider.logout_token()


def signed_by_a_shared_secret(provider: Provider) -> str:
    provider.signed_by = "secret"
    return provider.logout_token()


def claiming(**claims: object) -> Callable[[Provider], str]:
    return lambda provider: provider.logout_token(**claims)  # type: ignore[arg-type]  # claims of any form


@pytest.mark.parametrize(
    "made",
    [
        forged,
        unsigned,
        signed_by_a_shared_secret,
        lambda provider: "",
        lambda provider: "a.b.c",
        lambda provider: provider.logout_token(typ="at+jwt"),
        claiming(iss="https://evil.example"),
        claiming(aud="another"),
        claiming(iat=int(time.time()) - 600, exp=int(time.time()) - 300),
        claiming(iat=int(time.time()) + 300, exp=int(time.time()) + 600),
        claiming(exp=None),
        claiming(iat=None),
        claiming(exp=int(time.time()) + 86_400),
        claiming(exp="tomorrow"),
        claiming(jti=None),
        claiming(jti=7),
        claiming(nonce="n"),
        claiming(events=None),
        claiming(events={"another": {}}),
        claiming(events={EVENT: "x"}),
        claiming(events=[EVENT]),
        claiming(sub=None),
        claiming(sub=["4711"]),
    ],
)
def test_any_other_token_is_refused_and_ends_nothing(scene: Scene, made: Callable[[Provider], str]) -> None:
    answer = send(scene, made(scene.provider))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("logout token: expected a valid one of http://127.0.0.1:")
    scene.provider.signed_by = "key"
    assert is_in(scene)
    who, what, outcome = scene.log()[-1]
    assert (who, what) == ("unknown", "login")
    assert outcome.startswith("logout rejected: ")


def test_without_a_provider_there_is_no_logout(tmp_path: Path) -> None:
    write_user(tmp_path / "users", "anna", Right.VIEWER, "a long password")
    rig = ConsoleRig(tmp_path, users=tmp_path / "users")
    assert rig.visitor().post(LOGOUT, data={"logout_token": "x"}).status_code == 404
    rig.close()
