"""Logins by the headers of a trusted proxy, which are rejected from any other address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from consumers.console.access.login_settings import ProxyLoginSettings
from consumers.console.access.proxy import SECRET_HEADER, ProxyLogin
from consumers.console.access.rights import Person, Right, Roles
from consumers.console.access.sessions import PROXIED_S, Sessions
from consumers.console.role import open_context
from infra.local.ports import free_port
from schemas.errors import ConfigError
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig
from tests.consumers.served_console import client, serving
from tests.waiting import PATIENCE_S

PROXY = "192.0.2.1"
ANNA = {"x-forwarded-user": "anna", "x-forwarded-groups": "staff, ops"}
ROLES = ProxyLoginSettings(viewer=("staff",), operator=("ops",))
SECRET = "a secret of the proxy"


def with_secret(folder: Path, text: str = SECRET) -> ProxyLoginSettings:
    """Return settings of a proxy with a secret."""
    file = folder / "proxy.secret"
    file.write_text(f"{text}\n")
    return ROLES.model_copy(update={"secret_file": file})


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    console = ConsoleRig(tmp_path, changed={"behind_proxy": PROXY, "proxy_login": ROLES})
    yield console
    console.close()


def request(rig: ConsoleRig, headers: dict[str, str] | list[tuple[str, str]], address: str = PROXY) -> httpx2.Response:
    return rig.visitor(address).get("/", headers=headers)


def test_the_user_in_the_proxys_headers_is_logged_in_with_a_role_and_logged_once(rig: ConsoleRig) -> None:
    page = request(rig, ANNA)
    assert page.status_code == 200
    assert "<span>anna</span>" in page.text
    assert "Log out" not in page.text
    request(rig, ANNA)
    lines = [(each.who, each.what, each.detail) for each in rig.context.store.newest_operations()]
    assert lines == [("anna", "login", "proxy")]


def test_the_login_page_refers_users_to_the_proxy(rig: ConsoleRig) -> None:
    page = rig.visitor("192.0.2.9").get("/login").text
    assert "at the address of your organisation" in page
    assert "<form" not in page


def test_the_session_of_a_stream_through_the_proxy_ends_after_a_limit() -> None:
    now_s = 0.0
    sessions = Sessions(None, lambda: now_s)
    proxied = sessions.proxied(Person("anna", Roles.parse(Right.VIEWER)))
    own = sessions.passing(Person("anna", Roles.parse(Right.VIEWER)))
    now_s = PROXIED_S
    assert not sessions.holds(proxied)
    assert sessions.holds(own)


def test_a_form_token_is_valid_for_later_requests_of_the_same_user_and_role_only(rig: ConsoleRig) -> None:
    browser = rig.visitor(PROXY)
    csrf = browser.get("/system", headers=ANNA).text.partition('name="csrf" value="')[2].partition('"')[0]
    fields = {"camera": "lab/door", "csrf": csrf}
    assert browser.post("/fleet/forget", data=fields, headers=ANNA).status_code == 404
    other = ANNA | {"x-forwarded-user": "bob"}
    assert browser.post("/fleet/forget", data=fields, headers=other).status_code == 403
    viewer = {"x-forwarded-user": "anna", "x-forwarded-groups": "staff"}
    assert browser.post("/fleet/forget", data=fields, headers=viewer).status_code == 403


def test_a_request_without_the_headers_is_redirected_to_the_login(rig: ConsoleRig) -> None:
    assert request(rig, {}).headers["location"] == "/login?then=/"


@pytest.mark.parametrize(
    ("headers", "address", "complaint"),
    [
        (ANNA, "192.0.2.2", "x-forwarded-user: expected a request of the proxy, got one from 192.0.2.2"),
        (ANNA, "::1", "x-forwarded-user: expected a request of the proxy, got one from ::1"),
        (
            {"x-forwarded-groups": "ops"},
            "192.0.2.2",
            "x-forwarded-user: expected a request of the proxy, got one from 192.0.2.2",
        ),
        (
            [*ANNA.items(), ("x-forwarded-user", "root")],
            PROXY,
            "x-forwarded-user: expected exactly one header, got 2",
        ),
        (
            {"x-forwarded-groups": "ops"},
            PROXY,
            "x-forwarded-user: expected exactly one header, got 0",
        ),
        (
            ANNA | {"x-forwarded-user": "anna (token of root)"},
            PROXY,
            "x-forwarded-user: expected at most 64 letters, digits and . _ @ -, got 'anna (token of root)'",
        ),
        (
            ANNA | {"x-forwarded-groups": "guests"},
            PROXY,
            "anna: expected a group with a role in X-Forwarded-Groups, got none. Ask an admin.",
        ),
        (
            {"x-forwarded-user": "anna"},
            PROXY,
            "anna: expected a group with a role in X-Forwarded-Groups, got none. Ask an admin.",
        ),
    ],
)
def test_an_invalid_header_is_rejected_and_logged_in_one_line(
    rig: ConsoleRig, headers: dict[str, str] | list[tuple[str, str]], address: str, complaint: str
) -> None:
    answer = request(rig, headers, address)
    assert answer.status_code == 403
    assert answer.json()["error"].lower() == complaint.lower()
    [line] = rig.context.store.newest_operations()
    assert (line.who, line.outcome.lower()) == ("unknown", f"rejected: {complaint.lower()}")


@pytest.mark.parametrize("listen", ["127.0.0.1", "::"])
def test_the_proxy_is_recognized_by_the_address_of_its_connection(tmp_path: Path, listen: str) -> None:
    async def run() -> None:
        port = free_port()
        login = with_secret(tmp_path)
        async with serving(tmp_path, http=(listen, port), behind_proxy="127.0.0.1", proxy_login=login):
            headers = ANNA | {"x-forwarded-for": "203.0.113.9", SECRET_HEADER: SECRET}
            url = f"http://127.0.0.1:{port}/api/v1/operations"
            async with client() as proxy:
                answer = await proxy.get(url, headers=headers)
            assert [(each["who"], each["subject"]) for each in answer.json()] == [("anna", "203.0.113.9")]
            transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2", verify=False)
            async with httpx2.AsyncClient(transport=transport, timeout=PATIENCE_S) as other:
                forged = await other.get(url, headers=ANNA | {"x-forwarded-for": "127.0.0.1"})
            assert forged.status_code == 403
            assert "got one from 127.0.0.2" in forged.json()["error"]

    asyncio.run(run())


def test_headers_from_a_shared_address_need_the_proxys_secret(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path, changed={"behind_proxy": "127.0.0.0/8", "proxy_login": with_secret(tmp_path)})
    try:
        assert request(rig, ANNA | {SECRET_HEADER: SECRET}, "127.0.0.1").status_code == 200
        for forged in ({}, {SECRET_HEADER: ""}, {SECRET_HEADER: f"{SECRET}s"}):
            answer = request(rig, ANNA | forged, "127.0.0.1")
            assert answer.status_code == 403
            assert answer.json() == {"error": f"{SECRET_HEADER}: expected the proxy's secret, got none or another"}
    finally:
        rig.close()


@pytest.mark.parametrize("proxies", ["127.0.0.1", "::1", "192.0.2.0/24"])
def test_a_proxy_at_a_shared_address_is_rejected_without_a_secret(proxies: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"proxy_login\.secret_file is missing"):
        ProxyLogin(ROLES, proxies)
    ProxyLogin(with_secret(tmp_path), proxies)
    with pytest.raises(ConfigError, match=r"proxy_login\.secret_file: expected at least 16 characters, got 5\."):
        ProxyLogin(with_secret(tmp_path, "short"), proxies)
    with pytest.raises(ConfigError, match=r"proxy_login\.secret_file: expected a readable file"):
        ProxyLogin(ROLES.model_copy(update={"secret_file": tmp_path / "none"}), proxies)


def test_a_foreign_bearer_token_is_ignored_and_a_token_of_this_console_checked(rig: ConsoleRig) -> None:
    assert request(rig, ANNA | {"authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA"}).status_code == 200
    assert request(rig, ANNA | {"authorization": "Bearer pointillist_guess"}).status_code == 401
    assert request(rig, {"authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA"}, "192.0.2.2").status_code == 401


def test_a_login_by_headers_needs_the_proxys_address(rig: ConsoleRig) -> None:
    settings = rig.context.settings.model_copy(update={"behind_proxy": None})
    with pytest.raises(ConfigError, match="behind_proxy is missing"):
        open_context(settings, CONSOLE_KEYS)


def test_the_highest_role_of_several_groups_applies_and_a_star_matches_all_users() -> None:
    roles = ProxyLoginSettings(viewer=("*",), operator=("ops",), admin=("root",))
    assert str(roles.roles_of([])) == "viewer"
    assert str(roles.roles_of(["ops", "root"])) == "admin"
    assert ROLES.roles_of(["guests"]) is None
    assert ROLES.roles_of(["*"]) is None


def test_groups_have_roles_by_site_and_the_highest_for_each_site_applies() -> None:
    sites = {"guards": "north=operator,south=viewer", "north-lead": "north=admin", "*": "lobby=viewer"}
    roles = ProxyLoginSettings(sites=sites)
    assert str(roles.roles_of(["guards", "north-lead"])) == "lobby=viewer,north=admin,south=viewer"
    assert str(roles.roles_of(["others"])) == "lobby=viewer"
    with pytest.raises(
        ValueError, match=r"sites\.guards: expected viewer, operator or admin, or SITE=ROLE,…, got 'boss'"
    ):
        ProxyLoginSettings(sites={"guards": "boss"})


def test_the_user_in_the_proxys_headers_sees_the_sites_of_the_groups(tmp_path: Path) -> None:
    settings = ProxyLoginSettings(sites={"guards": "north=viewer"})
    rig = ConsoleRig(tmp_path, changed={"behind_proxy": PROXY, "proxy_login": settings})
    headers = {"x-forwarded-user": "anna", "x-forwarded-groups": "guards"}
    assert request(rig, headers).status_code == 200
    assert rig.visitor(PROXY).get("/system", headers=headers).status_code == 403
    assert rig.visitor(PROXY).get("/api/v1/cameras/south/vault", headers=headers).status_code == 404
    rig.close()
