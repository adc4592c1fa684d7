"""The rights of the console's routes, which the gate enforces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from consumers.console.access.cookies import COOKIE
from consumers.console.access.rights import GuardedRoute, OpenMount, Right, RightScope
from consumers.console.access.users import write_user
from consumers.console.api.routes import ROOT, document
from consumers.console.web import make_app
from tests.consumers.console_rig import ConsoleRig

PASSWORD = "a long password"
OPEN = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/login/link"),
    ("GET", "/login/openid"),
    ("GET", "/login/openid/done"),
    ("POST", "/login/openid/logout"),
    ("POST", "/logout"),
    ("GET", "/health"),
}
"""The routes that strangers reach, besides the files below /static."""
ADMINS = re.compile(r"/(api/v1/)?(jobs/|dead-letters/replay|teach/train)")
"""The paths of changes that only admins may make; operators may make all others."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    for right in Right:
        write_user(tmp_path / "users", right.value, right, PASSWORD)
    console = ConsoleRig(tmp_path, users=tmp_path / "users")
    yield console
    console.close()


def guarded(rig: ConsoleRig) -> list[GuardedRoute]:
    app = make_app(rig.context)
    assert [route for route in app.routes if not isinstance(route, GuardedRoute | OpenMount)] == []
    return [route for route in app.routes if isinstance(route, GuardedRoute)]


def path_of(route: GuardedRoute) -> str:
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: "1" if found[2] else "x", route.path)


def request(browser: TestClient, route: GuardedRoute, csrf: str = "") -> httpx2.Response:
    path = path_of(route)
    if route.method == "GET":
        return browser.get(path)
    if path.startswith(ROOT):
        return browser.post(path, json={})
    return browser.post(path, data={"csrf": csrf})


def test_every_route_has_a_right_and_only_the_login_is_open(rig: ConsoleRig) -> None:
    routes = guarded(rig)
    assert len(routes) > 60
    assert {(route.method, route.path) for route in routes if route.needed is None} == OPEN
    for route in routes:
        if route.method == "POST" and route.needed is not None:
            assert route.needed is (Right.ADMIN if ADMINS.match(route.path) else Right.OPERATOR), route.path


def test_strangers_reach_only_the_login(rig: ConsoleRig) -> None:
    stranger = rig.visitor()
    for route in guarded(rig):
        if (route.method, route.path) not in OPEN:
            answer = request(stranger, route)
            assert answer.status_code in (303, 401), route.path
            assert answer.headers.get("location", "/login?").startswith("/login?"), route.path


@pytest.mark.parametrize("right", Right)
def test_a_role_gets_status_403_exactly_at_the_routes_above_it(rig: ConsoleRig, right: Right) -> None:
    browser = rig.visitor()
    browser.post("/login", data={"name": right.value, "password": PASSWORD})
    session = rig.context.sessions.find(browser.cookies[COOKIE])
    assert session is not None
    for route in guarded(rig):
        if route.needed is None or (right.covers(route.needed) and route.method == "GET"):
            continue  # streams do not end
        answer = request(browser, route, session.csrf)
        if right.covers(route.needed):
            assert "expected the right" not in answer.text, route.path
        else:
            assert answer.status_code == 403, route.path
            assert answer.json() == {"error": f"user: expected the right `{route.needed}`, got `{right}`"}


def test_viewers_can_change_nothing_by_any_method_or_path(rig: ConsoleRig) -> None:
    browser = rig.visitor()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for route in guarded(rig):
            if (method, route.path) in OPEN:
                continue
            answer = browser.request(method, path_of(route), auth=("viewer", PASSWORD), json={})
            assert answer.status_code == 403, (method, route.path)


def test_a_route_for_changes_by_viewers_cannot_be_created() -> None:
    async def answer(_request: Request) -> Response:
        return Response()

    with pytest.raises(ValueError, match="POST /x: expected at least the right `operator`, got `viewer`"):
        GuardedRoute("/x", answer, "POST", reach=RightScope.SAME)


PLACES = {
    RightScope.SITE: "the camera's site",
    RightScope.PART: "one site or more",
    RightScope.FLEET: "all sites",
    RightScope.SAME: "any site",
}


def test_the_openapi_document_names_the_right_that_the_gate_compares(rig: ConsoleRig) -> None:
    paths = document()["paths"]
    found = {(route.method, route.path): route for route in guarded(rig) if route.path.startswith(ROOT)}
    described = {(method.upper(), path): entry for path, each in paths.items() for method, entry in each.items()}
    assert found.keys() == described.keys()
    for key, entry in described.items():
        needs = f"Needs the right `{found[key].needed}` at {PLACES[found[key].reach or RightScope.SITE]}."
        assert entry["description"].startswith(needs), key
