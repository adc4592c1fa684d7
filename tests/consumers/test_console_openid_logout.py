"""Back-channel logout: only the identity provider ends logins, by a logout token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from consumers.console.access.cookies import COOKIE
from consumers.console.access.openid import LOGOUT, MOST_LOGOUTS, OpenIdLogin
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.database.console_store import AuditLog
from tests.consumers import openid_provider
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.openid_provider import Provider
from tests.consumers.test_console_openid import Scene

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with openid_provider.running_provider() as provider:
        provider.person["sid"] = "first"
        scene = Scene(tmp_path, provider)
        assert scene.log_in().status_code == 200
        yield scene
        scene.rig.close()


def send(scene: Scene, token: str) -> httpx2.Response:
    return scene.rig.visitor("192.0.2.7").post(LOGOUT, data={"logout_token": token})


def is_logged_in(scene: Scene) -> bool:
    return scene.visitor.get("/").status_code == 200


def test_a_logout_ends_the_sessions_of_its_subject(scene: Scene) -> None:
    token = scene.provider.logout_token()
    assert is_logged_in(scene)
    assert send(scene, token).status_code == 200
    assert not is_logged_in(scene)
    assert scene.log()[-1] == ("anna", "logout", "logged out by the provider")


def test_a_logout_with_a_sid_ends_only_the_login_with_that_sid(scene: Scene) -> None:
    assert send(scene, scene.provider.logout_token(sid="second")).status_code == 200
    assert send(scene, scene.provider.logout_token(sub=None, sid="second")).status_code == 200
    assert send(scene, scene.provider.logout_token(sub="4712", sid="first")).status_code == 200
    assert is_logged_in(scene)
    assert send(scene, scene.provider.logout_token(sub=None, sid="first")).status_code == 200
    assert not is_logged_in(scene)


def test_a_token_with_subject_and_sid_ends_a_session_without_sid(scene: Scene) -> None:
    del scene.provider.person["sid"]
    scene.log_in()
    assert send(scene, scene.provider.logout_token(sub="4712", sid="first")).status_code == 200
    assert send(scene, scene.provider.logout_token(sub=None, sid="first")).status_code == 200
    assert is_logged_in(scene)
    assert send(scene, scene.provider.logout_token(sid="first")).status_code == 200
    assert not is_logged_in(scene)


def test_a_token_that_ends_nothing_is_logged(scene: Scene) -> None:
    with capture_logs() as lines:
        send(scene, scene.provider.logout_token(sub="4712", sid="second"))
        send(scene, scene.provider.logout_token())
    found = [(each["subject"], each["sid"]) for each in lines if each["event"] == "logout_matched_no_session"]
    assert found == [("4712", "second")]


def test_failed_logins_from_the_providers_network_delay_no_logout(scene: Scene) -> None:
    neighbour = scene.rig.visitor("192.0.2.7")
    scene.now_s += 4_000  # the discovery document has expired
    scene.provider.broken.add("/.well-known/openid-configuration")
    assert [neighbour.get("/login/openid").status_code for _ in range(21)] == [503] * 20 + [429]
    scene.provider.broken.clear()
    assert send(scene, scene.provider.logout_token()).status_code == 200
    assert not is_logged_in(scene)


async def test_concurrent_logout_tokens_are_all_accepted_up_to_a_bound(scene: Scene) -> None:
    settings = scene.rig.context.settings.openid
    assert settings is not None
    login = OpenIdLogin(settings)

    async def status() -> int:
        try:
            await login.logged_out(scene.provider.logout_token())
        except RefusedLoginError as refusal:
            return refusal.status
        return 200

    cold = await asyncio.gather(*(status() for _ in range(MOST_LOGOUTS + 3)))
    assert cold == [200] * MOST_LOGOUTS + [503] * 3
    assert scene.provider.requests.count("/keys") == 2, "once for the login of the fixture, once for all tokens"
    warm = await asyncio.gather(*(status() for _ in range(MOST_LOGOUTS + 3)))
    assert set(warm) == {200}


@pytest.mark.parametrize("claims", [{}, {"sid": "first"}, {"sub": None, "sid": "first"}])
def test_a_logout_during_the_login_ends_the_new_session(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, claims: dict[str, object]
) -> None:
    scene.visitor.cookies.clear()
    logins, note = scene.rig.context.logins, scene.rig.context.note
    token = scene.provider.logout_token(**claims)  # type: ignore[arg-type]  # claims of any form

    async def slow(who: str, what: str, subject: str, detail: str, outcome: str, log: AuditLog) -> None:
        await note(who, what, subject, detail, outcome, log=log)
        if what == "login":
            await logins.by_logout_token(token, "192.0.2.7")

    with monkeypatch.context() as patched:
        patched.setattr(logins, "_note", slow)
        done = scene.log_in()
    assert (done.status_code, "the provider has ended it meanwhile" in done.text) == (401, True)
    assert COOKIE not in scene.visitor.cookies
    assert scene.log()[-1] == ("anna", "logout", "logged out by the provider")
    assert scene.log_in().status_code == 200, "a login after the logout is another one"
    assert is_logged_in(scene)


def test_an_unknown_key_causes_one_request_for_keys_and_evicts_no_known_key(scene: Scene) -> None:
    forged_key = openid_provider.make_key("two")
    valid_key, scene.provider.key, scene.provider.key_id = scene.provider.key, forged_key, "two"
    tokens = [scene.provider.logout_token() for _ in range(4)]
    scene.provider.key, scene.provider.key_id = valid_key, "one"
    scene.provider.broken.add("/keys")
    assert [send(scene, token).status_code for token in tokens[:2]] == [503, 400]
    assert scene.log_in().status_code == 200
    scene.provider.broken.clear()
    assert send(scene, tokens[2]).status_code == 400
    assert scene.provider.requests.count("/keys") == 2
    scene.now_s += 30
    assert send(scene, tokens[3]).status_code == 400
    assert scene.provider.requests.count("/keys") == 3


def test_logins_by_password_and_of_other_users_are_kept(scene: Scene) -> None:
    visitor = scene.rig.visitor()
    visitor.post("/login", data={"name": "carla", "password": "a long password"})
    assert send(scene, scene.provider.logout_token(sub="4712")).status_code == 200
    assert is_logged_in(scene)
    assert send(scene, scene.provider.logout_token()).status_code == 200
    assert visitor.get("/").status_code == 200


def test_a_logout_token_is_accepted_once(scene: Scene) -> None:
    token = scene.provider.logout_token()
    assert send(scene, token).status_code == 200
    scene.log_in()
    again = send(scene, token)
    assert (again.status_code, "got a used one" in again.text) == (400, True)
    assert is_logged_in(scene)


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


def valid(from_s: int, until_s: int) -> Callable[[Provider], str]:
    """Return a maker of tokens that are valid from `from_s` to `until_s` seconds after now."""

    def make(provider: Provider) -> str:
        now_s = int(time.time())
        return provider.logout_token(iat=now_s + from_s, exp=now_s + until_s)

    return make


@pytest.mark.parametrize(
    "make",
    [
        forged,
        unsigned,
        signed_by_a_shared_secret,
        lambda provider: "",
        lambda provider: "a.b.c",
        lambda provider: provider.logout_token(typ="at+jwt"),
        claiming(iss="https://evil.example"),
        claiming(aud="another"),
        valid(-600, -300),
        valid(300, 600),
        claiming(exp=None),
        claiming(iat=None),
        valid(0, 86_400),
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
def test_an_invalid_token_is_rejected_and_ends_no_session(scene: Scene, make: Callable[[Provider], str]) -> None:
    answer = send(scene, make(scene.provider))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("logout token: expected a valid one of http://127.0.0.1:")
    scene.provider.signed_by = "key"
    assert is_logged_in(scene)
    who, what, outcome = scene.log()[-1]
    assert (who, what) == ("unknown", "login")
    assert outcome.startswith("logout rejected: ")


def test_without_a_provider_there_is_no_logout(tmp_path: Path) -> None:
    write_user(tmp_path / "users", "anna", Right.VIEWER, "a long password")
    rig = ConsoleRig(tmp_path, users=tmp_path / "users")
    assert rig.visitor().post(LOGOUT, data={"logout_token": "x"}).status_code == 404
    rig.close()
