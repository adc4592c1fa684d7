"""Logins by OpenID Connect with a test provider over HTTP: accepted logins, and each reason for a rejection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from consumers.console.access.cookies import COOKIE, OPENID_COOKIE
from consumers.console.access.login_settings import OpenIdSettings
from consumers.console.access.pending import PENDING_S
from consumers.console.access.provider_places import AT_ONCE, AT_ONCE_OF_NETWORK, ProviderPlaces
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Right
from consumers.console.access.users import remove_user, write_user
from consumers.console.role import open_context
from schemas.errors import ConfigError
from tests.consumers import openid_provider
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig
from tests.consumers.openid_provider import CLIENT_ID, CLIENT_SECRET, Provider


@dataclass
class Scene:
    """A console, its provider, and a browser; `meddle` may change the provider's answer."""

    folder: Path
    provider: Provider
    now_s: float = 1_000.0
    meddle: Callable[[dict[str, str]], None] = lambda _answer: None
    then: str = "/alerts"
    rig: ConsoleRig = field(init=False)
    visitor: TestClient = field(init=False)

    def __post_init__(self) -> None:
        secret = self.folder / "client.secret"
        secret.write_text(f"{CLIENT_SECRET}\n")
        write_user(self.folder / "users", "carla", Right.ADMIN, "a long password")
        settings = OpenIdSettings(
            issuer=self.provider.url, client_id=CLIENT_ID, client_secret_file=secret, url="http://127.0.0.1",
            viewer=("staff",), operator=("ops",), admin=("root",),
        )  # fmt: skip
        self.rig = ConsoleRig(
            self.folder,
            users=self.folder / "users",
            clock_s=lambda: self.now_s,
            changed={"openid": settings},
        )
        self.visitor = self.rig.visitor()

    def begin(self) -> httpx2.Response:
        """Follow the link of the login page."""
        return self.visitor.get("/login/openid", params={"then": self.then})

    def answer(self) -> str:
        """Log in at the provider. Return the path of the redirect, changed by `meddle`."""
        begun = self.begin()
        assert begun.status_code == 303, begun.text
        back = httpx2.get(begun.headers["location"], verify=False).headers["location"]
        parts = urlsplit(back)
        assert (parts.netloc, parts.path) == ("127.0.0.1", "/login/openid/done")
        values = {name: found[-1] for name, found in parse_qs(parts.query).items()}
        self.meddle(values)
        return f"{parts.path}?{urlencode(values)}"

    def log_in(self) -> httpx2.Response:
        """Log in. Return the answer of the console."""
        return self.visitor.get(self.answer())

    def log(self) -> list[tuple[str, str, str]]:
        """Return user, action and outcome of each line of the audit log, the oldest first."""
        return [(each.who, each.what, each.outcome) for each in self.rig.context.store.newest_operations()][::-1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with openid_provider.running_provider() as provider:
        scene = Scene(tmp_path, provider)
        yield scene
        scene.rig.close()


def test_a_login_at_the_provider_gives_the_highest_role_of_the_groups(scene: Scene) -> None:
    assert '<a class="button" href="/login/openid?then=%2F">' in scene.visitor.get("/login").text
    done = scene.log_in()
    assert done.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/alerts">' in done.text
    page = scene.visitor.get("/alerts")
    assert page.status_code == 200
    assert "<span>anna</span>" in page.text
    session = scene.rig.context.sessions.find(scene.visitor.cookies[COOKIE])
    assert session is not None
    assert (session.name, str(session.roles)) == ("anna", "operator")
    first = scene.rig.context.store.newest_operations()[-1]
    assert (first.who, first.what, first.detail) == ("anna", "login", "OpenID Connect, subject 4711")
    assert scene.visitor.post("/dead-letters/replay", data={"csrf": session.csrf}).status_code == 403


def test_a_password_logs_in_next_to_the_provider(scene: Scene) -> None:
    fields = {"name": "carla", "password": "a long password"}
    assert scene.visitor.post("/login", data=fields).status_code == 303


def test_the_logout_ends_the_session_and_continues_at_the_provider(scene: Scene) -> None:
    scene.log_in()
    session = scene.rig.context.sessions.find(scene.visitor.cookies[COOKIE])
    assert session is not None
    left = scene.visitor.post("/logout", data={"csrf": session.csrf})
    assert f"url={scene.provider.url}/logout?id_token_hint=" in left.text
    assert urlencode({"post_logout_redirect_uri": "http://127.0.0.1/login"}) in left.text
    assert scene.visitor.get("/").status_code == 303
    assert scene.log()[-1] == ("anna", "logout", "logged out")


def test_a_clock_that_differs_by_less_than_the_leeway_is_accepted(scene: Scene) -> None:
    scene.provider.claims = {"iat": int(time.time()) + 50, "exp": int(time.time()) - 50}
    assert scene.log_in().status_code == 200


def test_changed_keys_of_the_provider_are_read_again(scene: Scene) -> None:
    assert scene.log_in().status_code == 200
    scene.provider.key, scene.provider.key_id = openid_provider.make_key("two"), "two"
    assert scene.log_in().status_code == 200
    assert scene.provider.requests.count("/keys") == 2
    assert scene.provider.requests.count("/.well-known/openid-configuration") == 1


def wrong_state(scene: Scene) -> None:
    scene.meddle = lambda answer: answer.update(state="another")


def no_state(scene: Scene) -> None:
    scene.meddle = lambda answer: answer.update(state="")


def no_cookie(scene: Scene) -> None:
    scene.meddle = lambda _answer: scene.visitor.cookies.clear()


def forged_cookie(scene: Scene) -> None:
    def meddle(_answer: dict[str, str]) -> None:
        body, _, tag = scene.visitor.cookies[OPENID_COOKIE].partition(".")
        scene.visitor.cookies.set(OPENID_COOKIE, f"{body[:-4]}AAAA.{tag}", domain="127.0.0.1", path="/")

    scene.meddle = meddle


def late(scene: Scene) -> None:
    def meddle(_answer: dict[str, str]) -> None:
        scene.now_s += PENDING_S

    scene.meddle = meddle


def replayed_code(scene: Scene) -> None:
    def meddle(answer: dict[str, str]) -> None:
        cookie = scene.visitor.cookies[OPENID_COOKIE]
        first = scene.visitor.get(f"/login/openid/done?{urlencode(answer)}")
        assert first.status_code == 200
        scene.visitor.cookies.clear()
        scene.visitor.cookies.set(OPENID_COOKIE, cookie, domain="127.0.0.1", path="/")

    scene.meddle = meddle


def code_of_another_login(scene: Scene) -> None:
    def meddle(answer: dict[str, str]) -> None:
        scene.meddle = stolen.update
        scene.answer()
        answer["code"] = stolen["code"]
        scene.visitor.cookies.set(OPENID_COOKIE, cookie, domain="127.0.0.1", path="/")

    stolen: dict[str, str] = {}
    cookie = ""

    def swap_logins(answer: dict[str, str]) -> None:
        nonlocal cookie
        cookie = scene.visitor.cookies[OPENID_COOKIE]
        scene.visitor.cookies.clear()
        meddle(answer)

    scene.meddle = swap_logins


def denied(scene: Scene) -> None:
    def meddle(answer: dict[str, str]) -> None:
        del answer["code"]
        answer["error"] = "access_denied"

    scene.meddle = meddle


def of_another_provider(scene: Scene) -> None:
    scene.meddle = lambda answer: answer.update(iss="https://evil.example")


def expired(scene: Scene) -> None:
    scene.provider.claims = {"iat": int(time.time()) - 600, "exp": int(time.time()) - 300}


def from_the_future(scene: Scene) -> None:
    scene.provider.claims = {"iat": int(time.time()) + 300, "exp": int(time.time()) + 600}


def wrong_audience(scene: Scene) -> None:
    scene.provider.claims = {"aud": "another", "azp": CLIENT_ID}


def wrong_issuer(scene: Scene) -> None:
    scene.provider.claims = {"iss": "https://evil.example"}


def wrong_nonce(scene: Scene) -> None:
    scene.provider.claims = {"nonce": "another"}


def no_nonce(scene: Scene) -> None:
    scene.provider.claims = {"nonce": None}


def no_expiry(scene: Scene) -> None:
    scene.provider.claims = {"exp": None}


def forged(scene: Scene) -> None:
    scene.provider.signed_by = "forged"


def unsigned(scene: Scene) -> None:
    scene.provider.signed_by = "none"


def signed_by_a_shared_secret(scene: Scene) -> None:
    scene.provider.signed_by = "secret"


def unknown_role(scene: Scene) -> None:
    scene.provider.person["groups"] = ["guests"]


def no_groups(scene: Scene) -> None:
    scene.provider.person["groups"] = {"ops": True}


def a_name_with_a_line_break(scene: Scene) -> None:
    scene.provider.person["preferred_username"] = "anna\nroot"


def the_name_of_a_user_with_a_password(scene: Scene) -> None:
    scene.provider.person["preferred_username"] = "carla"


def keys_away(scene: Scene) -> None:
    scene.provider.broken.add("/keys")


def tokens_away(scene: Scene) -> None:
    scene.provider.broken.add("/token")


def no_keys(scene: Scene) -> None:
    scene.provider.odd_keys = None


def keys_not_json(scene: Scene) -> None:
    scene.provider.metadata = {"jwks_uri": f"{scene.provider.url}/text"}


def keys_at_no_url(scene: Scene) -> None:
    scene.provider.metadata = {"jwks_uri": "https://login.example:port/keys"}


_STATE = "state: expected a login that this browser began a moment ago. Log in again."
_TOKEN = "ID token: expected a valid one of http://127.0.0.1:"
_AWAY = "provider: expected an answer of http://127.0.0.1:"


@pytest.mark.parametrize(
    ("fault", "complaint", "status"),
    [
        (wrong_state, _STATE, 401),
        (no_state, _STATE, 401),
        (no_cookie, _STATE, 401),
        (forged_cookie, _STATE, 401),
        (late, _STATE, 401),
        (replayed_code, _STATE, 401),
        (code_of_another_login, "provider: expected a token, got &#39;invalid_grant&#39;", 401),
        (denied, "provider: expected a code, got &#39;access_denied&#39;", 401),
        (of_another_provider, "iss: expected http://127.0.0.1:", 401),
        (expired, _TOKEN, 401),
        (from_the_future, _TOKEN, 401),
        (wrong_audience, _TOKEN, 401),
        (wrong_issuer, _TOKEN, 401),
        (wrong_nonce, _TOKEN, 401),
        (no_nonce, _TOKEN, 401),
        (no_expiry, _TOKEN, 401),
        (forged, _TOKEN, 401),
        (unsigned, _TOKEN, 401),
        (signed_by_a_shared_secret, _TOKEN, 401),
        (unknown_role, "anna: expected a group with a role in the claim groups, got none. Ask an admin.", 403),
        (no_groups, "anna: expected a group with a role in the claim groups, got none. Ask an admin.", 403),
        (a_name_with_a_line_break, "preferred_username: expected at most 64 letters", 403),
        (the_name_of_a_user_with_a_password, "carla: expected a name that no user with a password has", 403),
        (keys_away, _AWAY, 503),
        (tokens_away, _AWAY, 503),
        (no_keys, "provider: expected at least one usable key, got none", 503),
        (keys_not_json, "provider: expected a JSON object at http://127.0.0.1:", 503),
        (keys_at_no_url, _AWAY, 503),
    ],
)
def test_an_invalid_login_is_rejected_and_logged_in_one_line(
    scene: Scene, fault: Callable[[Scene], None], complaint: str, status: int
) -> None:
    fault(scene)
    answer = scene.log_in()
    assert answer.status_code == status, answer.text
    assert f'class="complaint">{complaint}' in answer.text
    assert COOKIE not in scene.visitor.cookies
    assert scene.visitor.get("/").headers["location"] == "/login?then=/"
    who, what, outcome = scene.log()[-1]
    assert (who, what) == ("unknown", "login")
    assert outcome.startswith("rejected: ")
    assert "\n" not in outcome


def test_an_unreachable_provider_is_reported_at_the_start_of_a_login(scene: Scene) -> None:
    scene.provider.broken.add("/.well-known/openid-configuration")
    answer = scene.begin()
    assert answer.status_code == 503
    assert f"{_AWAY}{urlsplit(scene.provider.url).port}, got HTTPStatusError. Try again later." in answer.text
    scene.provider.broken.clear()
    assert scene.log_in().status_code == 200


def test_a_provider_with_another_issuer_is_rejected(scene: Scene) -> None:
    scene.provider.issuer = "https://evil.example"
    answer = scene.begin()
    assert answer.status_code == 401
    assert "issuer: expected http://127.0.0.1:" in answer.text


def test_a_provider_without_tls_is_rejected_unless_it_is_local() -> None:
    with pytest.raises(ValidationError, match=r"issuer: expected an https URL, got http://login\.example"):
        OpenIdSettings(issuer="http://login.example", client_id="a", url="https://console.example", viewer=("*",))


def test_a_console_without_tls_is_rejected_unless_it_is_local() -> None:
    with pytest.raises(ValidationError, match=r"url: expected an https URL, got http://console\.example"):
        OpenIdSettings(issuer="https://login.example", client_id="a", url="http://console.example", viewer=("*",))


def test_unusable_keys_are_skipped(scene: Scene) -> None:
    scene.provider.odd_keys = [{"kty": "EC", "crv": "none", "x": "AA", "y": "AA"}, {"kty": "RSA"}, "text", None]
    assert scene.log_in().status_code == 200


@pytest.mark.parametrize("endpoint", ["http://login.example/logout", "javascript:alert(1)", "https://[", 7])
def test_a_logout_address_without_tls_is_ignored(scene: Scene, endpoint: object) -> None:
    scene.provider.metadata = {"end_session_endpoint": endpoint}
    scene.log_in()
    session = scene.rig.context.sessions.find(scene.visitor.cookies[COOKIE])
    assert session is not None
    left = scene.visitor.post("/logout", data={"csrf": session.csrf})
    assert (left.status_code, left.headers["location"]) == (303, "/login")


def test_a_login_redirects_only_to_pages_of_this_console(scene: Scene) -> None:
    for then, place in (("/\t/evil.example", "/"), ("/camera/türe 1", "/camera/t%C3%BCre%201")):
        scene.then = then
        assert f'content="0; url={place}"' in scene.log_in().text


def test_the_host_of_the_consoles_url_is_served_and_no_other(scene: Scene) -> None:
    settings = scene.rig.context.settings
    assert settings.openid is not None
    openid = settings.openid.model_copy(update={"url": "https://console.example:8443"})
    other = ConsoleRig(scene.folder, changed={"openid": openid, "owner_file": None})
    try:
        for host, status in (("console.example:8443", 200), ("console.example", 200), ("evil.example", 421)):
            assert other.visitor().get("/login", headers={"host": host}).status_code == status
    finally:
        other.close()


def test_a_file_without_users_disables_password_logins_next_to_the_provider(scene: Scene) -> None:
    assert 'name="password"' in scene.visitor.get("/login").text
    remove_user(scene.folder / "users", "carla")
    assert 'name="password"' not in scene.visitor.get("/login").text
    again = ConsoleRig(
        scene.folder, users=scene.folder / "users", changed={"openid": scene.rig.context.settings.openid}
    )
    again.close()


def test_a_long_path_makes_no_cookie_too_large_for_browsers(scene: Scene) -> None:
    scene.then = "/" + "ü" * 499
    assert len(scene.begin().headers["set-cookie"]) < 4_096
    assert 'content="0; url=/"' in scene.log_in().text


def test_failed_logins_of_one_network_delay_only_that_network(scene: Scene) -> None:
    scene.provider.broken.add("/.well-known/openid-configuration")
    assert [scene.begin().status_code for _ in range(20)] == [503] * 20
    assert scene.begin().status_code == 429
    scene.provider.broken.clear()
    assert scene.rig.visitor("192.0.2.9").get("/login/openid").status_code == 303
    scene.now_s += 30
    assert scene.log_in().status_code == 200


def test_one_network_cannot_occupy_all_places() -> None:
    places = ProviderPlaces(lambda: 0.0)
    with ExitStack() as held:
        for number in range(AT_ONCE_OF_NETWORK):
            held.enter_context(places.held(f"2001:db8::{number}"))
        with pytest.raises(RefusedLoginError, match="at most 8 at once"), places.held("2001:db8::9"):
            pass
        for _ in range(AT_ONCE - AT_ONCE_OF_NETWORK):
            held.enter_context(places.held("192.0.2.1"))
        with pytest.raises(RefusedLoginError, match="at most 8 at once"), places.held("192.0.2.2"):
            pass
    with places.held("2001:db8::9"):
        pass


def test_settings_without_a_group_with_a_role_are_rejected() -> None:
    with pytest.raises(ValidationError, match="expected groups for at least one of viewer, operator, admin and sites"):
        OpenIdSettings(issuer="https://login.example", client_id="a", url="https://console.example")


def test_a_missing_secret_is_reported_before_the_console_starts(scene: Scene) -> None:
    openid = scene.rig.context.settings.openid
    assert openid is not None
    changed = openid.model_copy(update={"client_secret_file": scene.folder / "none"})
    with pytest.raises(ConfigError, match=r"openid\.client_secret_file: expected a readable file"):
        open_context(scene.rig.context.settings.model_copy(update={"openid": changed}), CONSOLE_KEYS)


def test_the_cookie_of_a_login_allows_the_redirect_of_the_provider_and_is_deleted_after_it(scene: Scene) -> None:
    begun = scene.begin().headers["set-cookie"]
    assert begun.startswith(f"{OPENID_COOKIE}=")
    assert "HttpOnly; SameSite=Lax" in begun
    scene.log_in()
    assert OPENID_COOKIE not in scene.visitor.cookies
