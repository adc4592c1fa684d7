"""Logins by the headers of a trusted proxy, which nobody else may send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from consumers.console.access.login_settings import ProxyLoginSettings
from consumers.console.access.rights import Right
from consumers.console.role import open_desk
from schemas.errors import ConfigError
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig
from tests.consumers.served_console import serving

PROXY = "192.0.2.1"
ANNA = {"x-forwarded-user": "anna", "x-forwarded-groups": "staff, ops"}
ROLES = ProxyLoginSettings(viewer=("staff",), operator=("ops",))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    made = ConsoleRig(tmp_path, changed={"behind_proxy": PROXY, "proxy_login": ROLES})
    yield made
    made.close()


def sent(rig: ConsoleRig, headers: dict[str, str] | list[tuple[str, str]], address: str = PROXY) -> httpx2.Response:
    return rig.visitor(address).get("/", headers=headers)


def test_a_person_whom_the_proxy_names_is_logged_in_with_a_role_and_noted_once(rig: ConsoleRig) -> None:
    page = sent(rig, ANNA)
    assert page.status_code == 200
    assert "<span>anna</span>" in page.text
    sent(rig, ANNA)
    lines = [(each.who, each.what, each.detail) for each in rig.context.store.noted()]
    assert lines == [("anna", "login", "proxy")]


def test_forms_of_one_person_stay_valid_over_requests_and_are_nobody_elses(rig: ConsoleRig) -> None:
    browser = rig.visitor(PROXY)
    csrf = browser.get("/system", headers=ANNA).text.partition('name="csrf" value="')[2].partition('"')[0]
    fields = {"camera": "lab/door", "csrf": csrf}
    assert browser.post("/fleet/forget", data=fields, headers=ANNA).status_code == 409
    other = ANNA | {"x-forwarded-user": "bob"}
    assert browser.post("/fleet/forget", data=fields, headers=other).status_code == 403
    viewer = {"x-forwarded-user": "anna", "x-forwarded-groups": "staff"}
    assert browser.post("/fleet/forget", data=fields, headers=viewer).status_code == 403


def test_a_request_without_the_headers_is_a_strangers(rig: ConsoleRig) -> None:
    assert sent(rig, {}).headers["location"] == "/login?then=/"


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
            "x-forwarded-user: expected one header of the proxy, got another number",
        ),
        (
            {"x-forwarded-groups": "ops"},
            PROXY,
            "x-forwarded-user: expected one header of the proxy, got another number",
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
def test_a_hostile_header_gets_one_clear_line_and_nobody_in(
    rig: ConsoleRig, headers: dict[str, str] | list[tuple[str, str]], address: str, complaint: str
) -> None:
    answer = sent(rig, headers, address)
    assert answer.status_code == 403
    assert answer.json()["error"].lower() == complaint.lower()
    [line] = rig.context.store.noted()
    assert (line.who, line.outcome.lower()) == ("unknown", f"rejected: {complaint.lower()}")


def test_the_address_that_counts_is_the_connections_own_and_not_a_headers(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path, behind_proxy="127.0.0.1", proxy_login=ROLES) as (port, _):
            headers = ANNA | {"x-forwarded-for": "203.0.113.9"}
            url = f"http://127.0.0.1:{port}/api/v1/operations"
            async with httpx2.AsyncClient() as proxy:
                answer = await proxy.get(url, headers=headers)
            assert [(each["who"], each["subject"]) for each in answer.json()] == [("anna", "203.0.113.9")]
            transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
            async with httpx2.AsyncClient(transport=transport) as other:
                forged = await other.get(url, headers=ANNA | {"x-forwarded-for": "127.0.0.1"})
            assert forged.status_code == 403
            assert "got one from 127.0.0.2" in forged.json()["error"]

    asyncio.run(run())


def test_a_login_by_headers_needs_the_proxys_address(rig: ConsoleRig) -> None:
    settings = rig.context.settings.model_copy(update={"behind_proxy": None})
    with pytest.raises(ConfigError, match="behind_proxy is missing"):
        open_desk(settings, CONSOLE_KEYS)


def test_the_highest_role_of_several_groups_applies_and_a_star_is_everybody() -> None:
    roles = ProxyLoginSettings(viewer=("*",), operator=("ops",), admin=("root",))
    assert roles.right_of([]) is Right.VIEWER
    assert roles.right_of(["ops", "root"]) is Right.ADMIN
    assert ROLES.right_of(["guests"]) is None
    assert ROLES.right_of(["*"]) is None
