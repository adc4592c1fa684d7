"""Rights by site: a user of one site neither reads nor changes another site, at any route by any method.

The routes are read from the application; a route that is not classified here fails a test.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from consumers.console.access.cookies import COOKIE
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope, Roles
from consumers.console.access.sight import ALL, Sight
from consumers.console.api.routes import ROOT, document
from consumers.console.data.fleet import Totals
from consumers.console.data.store import Store
from consumers.console.data.stream import Changed, Streams, message
from consumers.console.jobs import rows as job_rows
from consumers.console.jobs.jobs import KEPT
from consumers.console.jobs.rows import Job, JobKind, JobState
from consumers.console.web import make_app
from schemas.clock import monotonic_ms
from tests.consumers.recorder_rig import Rig, dead_letter
from tests.consumers.two_sites import CLIP_MS, MARKS, OURS, THEIRS, TwoSites

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
LISTS = {
    "/": ("", "site=SOUTH", "state=online", "text=VAUL", "page=2"),
    "/alerts": ("", "state=acknowledged", "state=closed", "camera=SOUTH/x"),
    "/dead-letters": ("", "reason=bad_pixels"),
    "/drop-policies": ("",),
    "/presets": ("",),
    "/sighting-rules": ("",),
    "/fleet/live": ("", "text=VAUL"),
    "/live": ("",),
    "/quarantine": ("",),
    "/rules": ("",),
    "/teach": ("", "show=labelled"),
    f"{ROOT}/alerts": ("", "state=open", "camera=south/vault", "site=south"),
    f"{ROOT}/cameras": ("", "site=south", "text=vault", "state=online"),
    f"{ROOT}/dead-letters": ("",),
    f"{ROOT}/drop-policies": ("",),
    f"{ROOT}/switches": ("",),
    f"{ROOT}/sighting-rules": ("",),
    f"{ROOT}/export/verdicts.csv": ("", "camera=south/vault"),
    f"{ROOT}/export/verdicts.parquet": ("", "camera=south/vault"),
    f"{ROOT}/jobs": ("",),
    f"{ROOT}/operations": ("", "subject=south/vault"),
    f"{ROOT}/sites": ("",),
}
"""Routes that list what the user may see, with queries. Pages repeat their query, so theirs are in capitals."""
OBJECTS = (
    "/alerts/{alert_id}", "/alerts/{alert_id}.png", "/dead-letters/{topic}/{partition:number}/{offset:number}",
    "/jobs/{job_id}", "/jobs/{job_id}/live", "/jobs/{job_id}/{name}.png", f"{ROOT}/jobs/{{job_id}}",
)  # fmt: skip
"""Routes of single objects, by an id that does not name the site."""
SAME = ("/rules/graph", "/runbooks", f"{ROOT}/openapi.json", f"{ROOT}/presets")
"""Routes without data of cameras."""
CAMERA: dict[str, object] = {"camera": THEIRS}
FRAME = f"{THEIRS}/{1:016x}-8"
FORMS: dict[str, Sequence[Mapping[str, object]]] = {
    "/alerts": [{"b2" * 16: "on", "state": "closed"}, {"a1" * 16: "on", "b2" * 16: "on", "mute": "1h", "reason": "x"}],
    "/alerts/{alert_id}": [{"state": "closed", "text": "mine"}, {"mute": "1h", "reason": "x"}],
    "/drop-policies": [{"cameras": THEIRS, "lowest": "0.25", "highest": "0.6"}],
    "/drop-policies/remove": [{"cameras": THEIRS}],
    "/presets": [{"name": "dusk", "enabled": "true"}],
    "/presets/remove": [{"name": "night"}],
    "/presets/switch": [{"cameras": THEIRS, "preset": "own settings"}, {"cameras": "*", "preset": "own settings"}],
    "/sighting-rules": [{"cameras": THEIRS, "wanted": "stop"}],
    "/sighting-rules/remove": [{"cameras": THEIRS, "wanted": "vehicle"}],
    "/fleet/forget": [CAMERA],
    "/teach/cameras": [CAMERA, CAMERA | {"wanted": "yes"}],
    "/teach/label": [{"names": f"{THEIRS}/{1:016x}-7", "label": "x"}, {"names": FRAME, "discard": "1"}],
    "/teach/wrong": [CAMERA | {"verdict": f"class of {THEIRS.partition('/')[0]}"}],
    "/teach/train": [{"name": "x"}],
    "/dead-letters/replay": [{"reason": "bad_pixels"}],
    "/jobs/repair": [CAMERA | {"bundle": "bundle-sick"}, {"camera": "", "bundle": "bundle-sick"}],
    "/jobs/publish": [{"bundle": "bundle-sick"}],
    "/jobs/rollback": [{}],
    "/jobs/candidate": [{"bundle": "bundle-sick"}],
    "/jobs/promote": [{}],
    "/jobs/dismiss": [{}],
    "/jobs/{job_id}/cancel": [{}],
    "/jobs/{job_id}/continue": [{}],
    "/camera/{site}/{camera}/clip": [{}],
    "/camera/{site}/{camera}/command": [{"drop_ratio": "0.5"}, {"reset": "1"}],
    "/camera/{site}/{camera}/certify": [{}],
    "/camera/{site}/{camera}/mute": [{"mute": "1h", "reason": "x"}],
    f"{ROOT}/alerts/{{alert_id}}": [{"state": "closed", "comment": "mine"}],
    f"{ROOT}/alerts/{{alert_id}}/mute": [{"for": "1h", "reason": "x"}],
    f"{ROOT}/cameras/{{site}}/{{camera}}/command": [{"drop_ratio": 0.5}],
    f"{ROOT}/cameras/{{site}}/{{camera}}/certify": [{"frames": 2}],
    f"{ROOT}/cameras/{{site}}/{{camera}}/forget": [{}],
    f"{ROOT}/cameras/{{site}}/{{camera}}/mute": [{"for": "1h", "reason": "x"}],
    f"{ROOT}/drop-policies": [{"cameras": THEIRS, "lowest": 0.25, "highest": 0.5}],
    f"{ROOT}/drop-policies/remove": [{"cameras": THEIRS}],
    f"{ROOT}/presets": [{"name": "dusk", "enabled": True}],
    f"{ROOT}/presets/remove": [{"name": "night"}],
    f"{ROOT}/switches": [
        {"cameras": THEIRS, "preset": "own settings"}, {"cameras": THEIRS, "settings": {"enabled": False}},
    ],
    f"{ROOT}/sighting-rules": [{"cameras": THEIRS, "wanted": "stop"}],
    f"{ROOT}/sighting-rules/remove": [{"cameras": THEIRS, "wanted": "stop"}],
    f"{ROOT}/dead-letters/replay": [{"reason": "bad_pixels"}],
    f"{ROOT}/jobs/repair": [CAMERA | {"bundle": "bundle-sick"}, {"camera": "", "bundle": "bundle-sick"}],
    f"{ROOT}/jobs/publish": [{"bundle": "bundle-sick"}],
    f"{ROOT}/jobs/rollback": [{}],
    f"{ROOT}/jobs/candidate": [{"bundle": "bundle-sick"}],
    f"{ROOT}/jobs/promote": [{}],
    f"{ROOT}/jobs/dismiss": [{}],
    f"{ROOT}/jobs/{{job_id}}/cancel": [{}],
    f"{ROOT}/jobs/{{job_id}}/continue": [{}],
}  # fmt: skip
"""Fields of requests that try to change the other site."""


def once(_streams: Streams, _request: Request, changed: Changed) -> Response:
    """Answer with the first event of a stream, which would not end by itself."""

    async def events() -> AsyncIterator[str]:
        found = changed()
        yield message(await found if isinstance(found, Awaitable) else found)

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest_asyncio.fixture
async def both(tmp_path: Path, recorder: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoSites]:
    monkeypatch.setattr(Streams, "answer", once)
    console = TwoSites(tmp_path, recorder, monkeypatch)
    yield console
    await console.close()


def routes_of(both: TwoSites) -> list[GuardedRoute]:
    found = make_app(both.context).routes
    return [route for route in found if isinstance(route, GuardedRoute) and route.needed is not None]


def object_path(route: str, parts: dict[str, str]) -> str:
    """Return the path of a route to an object, whose path parameters are `parts`."""
    names = parts | {"name": "stamped" if route.startswith("/jobs/") else f"{1:016x}-7"}
    path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: names[found[1]], route)
    return f"{path}?at_ms={CLIP_MS}" if route.endswith("/clip.mp4") else path


def paths_with_queries(route: GuardedRoute, parts: dict[str, str]) -> list[str]:
    path = object_path(route.path, parts)
    if route.method == "GET" and route.path in LISTS:
        return [f"{path}?{query}" if query else path for query in LISTS[route.path]]
    return [path]


class User:
    """The requests of one user."""

    def __init__(self, both: TwoSites, browser: httpx2.AsyncClient, roles: str) -> None:
        self.both, self.browser = both, browser
        token, self.csrf = both.session(roles)
        browser.cookies.set(COOKIE, token, domain="127.0.0.1", path="/")

    async def request(self, method: str, path: str, fields: Mapping[str, object]) -> httpx2.Response:
        if method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            return await self.browser.request(method, path)
        if path.startswith(ROOT):
            return await self.browser.request(method, path, json=fields)
        form = urlencode({"csrf": self.csrf, **fields})
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return await self.browser.request(method, path, content=form, headers=kind)

    async def request_all(self) -> AsyncIterator[tuple[GuardedRoute, str, str, Mapping[str, object], httpx2.Response]]:
        """Request each route by each method, with paths and fields that lead to the other site."""
        for route in routes_of(self.both):
            for path in paths_with_queries(route, self.both.path_parts(THEIRS)):
                for method in METHODS:
                    for fields in FORMS[route.path] if route.method == "POST" else [{}]:
                        yield route, method, path, fields, await self.request(method, path, fields)


@pytest_asyncio.fixture
async def browser(both: TwoSites) -> AsyncIterator[httpx2.AsyncClient]:
    async with both.rig.browser() as client:
        yield client


def test_every_route_is_classified(both: TwoSites) -> None:
    routes = routes_of(both)
    described = {(method.upper(), path) for path, each in document()["paths"].items() for method in each}
    assert described <= {(route.method, route.path) for route in routes}
    for route in routes:
        name = f"{route.method} {route.path}"
        if route.method == "POST":
            assert route.path in FORMS, f"{name}: expected its fields in FORMS"
        if "{site}" in route.path:
            assert route.reach is RightScope.SITE, name
        elif route.method == "GET" and (route.path in LISTS or route.path in OBJECTS):
            assert route.reach is RightScope.PART, name
        elif route.method == "GET" and route.path in SAME:
            assert route.reach is RightScope.SAME, name
        elif route.method == "GET":
            assert route.reach is RightScope.FLEET, f"{name}: expected it in LISTS, OBJECTS or SAME"
        else:
            assert route.reach in (RightScope.PART, RightScope.FLEET), name


@pytest.mark.parametrize("right", Right)
async def test_a_user_of_one_site_neither_reads_nor_changes_another_site(
    both: TwoSites, browser: httpx2.AsyncClient, right: Right
) -> None:
    user, before, requests = User(both, browser, f"north={right}"), both.their_state(), 0
    async for route, method, path, fields, answer in user.request_all():
        requests += 1
        received = answer.content + str(answer.headers.raw).encode()
        shown = f"{method} {path} {fields}: {answer.status_code}"
        assert not [mark for mark in MARKS if mark in received], shown
        if route.reach is RightScope.SITE or route.path in OBJECTS:
            assert answer.status_code in (403, 404, 405, 415), shown
        if route.reach is RightScope.FLEET and method == route.method:
            assert answer.status_code == 403, shown
        if method == METHODS[-1]:
            assert both.their_state() == before, shown
    assert requests > 700


@pytest.mark.parametrize("right", Right)
async def test_an_object_of_another_site_is_answered_like_one_that_does_not_exist(
    both: TwoSites, browser: httpx2.AsyncClient, right: Right
) -> None:
    user, unknown = User(both, browser, f"north={right}"), "nowhere/nothing"
    for route in routes_of(both):
        if route.reach is RightScope.FLEET or (route.method == "GET" and route.path in LISTS):
            continue
        for fields in FORMS[route.path] if route.method == "POST" else [{}]:
            answers = []
            for camera in (THEIRS, unknown):
                sent = {
                    key.replace("b2" * 16, "f" * 32) if camera == unknown else key: value.replace(THEIRS, camera)
                    if isinstance(value, str)
                    else value
                    for key, value in fields.items()
                }
                answer = await user.request(route.method, object_path(route.path, both.path_parts(camera)), sent)
                answers.append((answer.status_code, answer.content.replace(user.csrf.encode(), b"")))
            assert answers[0][0] == answers[1][0], (route.path, fields)
            if "reason" not in fields:
                assert re.sub(rb'data-now="\d+"', b"", answers[0][1]) == re.sub(rb'data-now="\d+"', b"", answers[1][1])


async def test_the_same_requests_read_and_change_the_site_for_an_authorized_user(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    """Prove that the requests of the tests above read and change something where they are allowed."""
    user, shown, changed = User(both, browser, EVERYWHERE + "=admin"), set[str](), set[str]()
    last = ("/fleet/forget", f"{ROOT}/cameras/{{site}}/{{camera}}/forget")
    for route in sorted(routes_of(both), key=lambda each: (each.method, each.path in last)):
        if "/jobs/" in route.path and route.method == "POST":
            continue  # tests of jobs start them
        for path in paths_with_queries(route, both.path_parts(THEIRS)):
            for fields in FORMS[route.path] if route.method == "POST" else [{}]:
                before = both.their_state()
                answer = await user.request(route.method, path, fields)
                if any(mark in answer.content for mark in MARKS) or (
                    answer.status_code == 200 and answer.headers["content-type"].startswith(("image/", "video/"))
                ):
                    shown.add(f"{route.method} {route.path}")
                if both.their_state() != before:
                    changed.add(f"{route.method} {route.path}")
    expected = {
        f"GET {route.path}"
        for route in routes_of(both)
        if route.method == "GET" and (route.path in {*LISTS, *OBJECTS} or route.reach is RightScope.SITE)
    }
    assert expected - shown <= NOTHING_TO_SHOW
    assert {f"POST {path}" for path in FORMS if "/jobs/" not in path} - changed <= NOTHING_TO_CHANGE


NOTHING_TO_SHOW = {
    "GET /live",
    "GET /jobs/{job_id}/{name}.png",
    "GET /jobs/{job_id}/live",
    "GET /picture/{site}/{camera}/{kind}.jpg",
}
"""Routes that show nothing here: only numbers, pictures and progress of jobs, and pictures as sent."""
NOTHING_TO_CHANGE = {
    f"POST {ROOT}/cameras/{{site}}/{{camera}}/forget",
    "POST /teach/train",
    *(f"POST {root}/presets{end}" for root in ("", ROOT) for end in ("", "/remove")),
}
"""Routes that change nothing here: the camera is already deleted, and trainings and presets belong to no site."""


async def test_a_user_of_one_site_reads_all_of_it(both: TwoSites, browser: httpx2.AsyncClient) -> None:
    user = User(both, browser, "north=viewer")
    for path in LISTS:
        if path not in ("/live", f"{ROOT}/sites"):  # one has only numbers, the other only sites of other consoles
            query = "?reason=bad_pixels" if path == "/dead-letters" else "?show=labelled" if path == "/teach" else ""
            answer = await user.request("GET", f"{path}{query}", {})
            assert answer.status_code == 200, path
            assert b"north" in answer.content, path
    for route in routes_of(both):
        if route.method == "GET" and (route.path in OBJECTS or route.reach is RightScope.SITE):
            answer = await user.request("GET", object_path(route.path, both.path_parts(OURS)), {})
            if f"GET {route.path}" not in NOTHING_TO_SHOW:
                assert answer.status_code == 200, route.path
    counted = (await user.request("GET", f"{ROOT}/cameras", {})).json()
    assert (counted["found"], sum(counted["counts"].values())) == (1, 1)
    header = (await user.request("GET", "/live", {})).text
    assert "1 alert" in header
    assert "2 alert" not in header


async def test_roles_differ_by_site(both: TwoSites, browser: httpx2.AsyncClient) -> None:
    user = User(both, browser, "north=operator,south=viewer")
    mute = {"for": "1h", "reason": "x"}
    for camera, status in ((OURS, 200), (THEIRS, 403), ("nowhere/nothing", 404)):
        parts = both.path_parts(camera)
        for path in (f"{ROOT}/cameras/{{site}}/{{camera}}/mute", f"{ROOT}/alerts/{{alert_id}}/mute"):
            assert (await user.request("POST", object_path(path, parts), mute)).status_code == status, (path, camera)
    both_sites = (await user.request("GET", f"{ROOT}/cameras", {})).json()
    assert both_sites["found"] == 2
    rejected = await user.request("GET", "/system", {})
    assert rejected.json() == {
        "error": "user: expected the right `viewer` on all sites, got `north=operator,south=viewer`"
    }


async def test_frames_of_sites_without_the_right_to_label_have_no_controls(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    user = User(both, browser, "north=operator,south=viewer")
    page = (await user.request("GET", "/teach", {})).text
    figures = dict(re.findall(r'<figure data-name="([^"]+)"[^>]*?( role="button"[^>]*)?>', page))
    assert {name: bool(role) for name, role in figures.items()} == {
        f"{OURS}/{1:016x}-7": True, f"{THEIRS}/{1:016x}-7": False,
    }  # fmt: skip
    chosen = dict(re.findall(r"<span>([^<]+)</span>( <button>Stop</button>)?</form>", page))
    assert chosen[OURS]
    assert not chosen[THEIRS]
    store = both.context.labelled_frames
    assert store is not None
    store.label([FRAME], "label of south", "eve")
    assert 'data-last=""' in (await user.request("GET", "/teach", {})).text
    answer = (await user.request("POST", "/teach/label", {"names": f"{OURS}/{1:016x}-8", "label": "mine"})).json()
    assert answer["counts"] == [["label of south", 1], ["mine", 1]]
    assert {each["name"]: each["may_label"] for each in answer["waiting"]} == {
        f"{OURS}/{1:016x}-7": True, f"{THEIRS}/{1:016x}-7": False,
    }  # fmt: skip


async def test_a_replay_is_logged_for_each_site_with_the_number_of_its_frames(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    letter = dead_letter(10, verified=True, camera_id=OURS, payload=b"payload")
    both.recorder.letter(letter)
    user = User(both, browser, "north=admin,south=admin,west=admin")
    answer = await user.request("POST", f"{ROOT}/dead-letters/replay", {"reason": "bad_pixels"})
    assert answer.json() == {"outcome": "3 sent again"}
    lines = [(each.site, each.outcome) for each in both.context.store.newest_operations() if each.what == "replay"]
    assert sorted(lines) == [("north", "2 sent again"), ("south", "1 sent again")]
    again = User(both, browser, "west=admin")
    answer = await again.request("POST", f"{ROOT}/dead-letters/replay", {"reason": "bad_pixels"})
    assert answer.json() == {"outcome": "no frame to send again; 0 recorded meanwhile"}


async def test_a_line_of_the_audit_log_belongs_to_the_site_of_its_subject(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    store = both.context.store
    store.note("root", "login", "192.0.2.1", "page", "logged in")
    ours = store.newest_operations(sight=Sight(frozenset({"north"})))
    assert {each.site for each in ours} == {"north"}
    assert "decision of north" in {each.detail for each in ours}
    assert "login" in {each.what for each in store.newest_operations(sight=ALL)}


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.brokers, pytest.mark.xdist_group("postgresql")])]
)
def test_the_audit_log_of_an_earlier_release_is_migrated_to_sites(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/first.sqlite"
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").create("first_operations")
    store = Store(url)
    store.prepare()
    for subject in (
        THEIRS,
        f"{OURS}/{1:016x}-7",
        "b2" * 16,
        "no site/at all",
        "/none",
        "North/gate",
        f"{'x' * 64}/long",
    ):
        store.note("root", "x", subject, "", "done", "")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE console_operations DROP COLUMN site")
    sent: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *each: sent.append(each[2]))
    store.prepare()
    store.prepare()
    assert len([each for each in sent if each.startswith("UPDATE")]) == 1
    found = {each.subject: each.site for each in store.newest_operations()}
    store.close()
    assert {subject: site for subject, site in found.items() if site} == {
        THEIRS: "south",
        f"{OURS}/{1:016x}-7": "north",
    }
    assert len(found) == 7


def test_each_site_keeps_its_newest_jobs(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    store.prepare()
    for at_ms, camera in enumerate([THEIRS, "", *[OURS] * 4]):
        job_rows.begin(
            store.engine, Job(f"job {at_ms}", JobKind.REPAIR, "", "", camera, "", at_ms, state=JobState.DONE)
        )
    assert sorted(job_rows.forget_old(store.engine, 2)) == ["job 2", "job 3"]
    assert [each.camera for each in job_rows.newest(store.engine, 9, ALL)] == [OURS, OURS, "", THEIRS]
    store.close()


async def test_a_repair_may_use_only_bundles_of_the_sites_of_its_user(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    made = {camera: f"job-{both.add_repair(camera)}" for camera in (OURS, THEIRS, "")}
    user = User(both, browser, "north=admin")
    offer = (await user.request("GET", f"{ROOT}/jobs", {})).json()
    assert [each["bundle"] for each in offer["bundles"]] == ["bundle-sick", "bundle-well", made[OURS]]
    page = (await user.request("GET", "/quarantine", {})).text
    assert [each in page for each in made.values()] == [True, False, False]
    for camera, status in ((THEIRS, 400), ("", 400), (OURS, 202)):
        fields = {"camera": OURS, "bundle": made[camera]}
        assert (await user.request("POST", f"{ROOT}/jobs/repair", fields)).status_code == status, camera


async def test_a_bundle_is_offered_though_its_job_is_too_old_for_the_list(both: TwoSites) -> None:
    name = f"job-{both.add_repair(OURS)}"
    for number in range(KEPT):
        job = Job(f"{number:016x}", JobKind.REPAIR, "own", "", THEIRS, "root", 10 + number, 11, JobState.FAILED)
        job_rows.begin(both.context.store.engine, job)
    assert name in both.rig.jobs.choices()


async def test_a_camera_outside_the_fleet_is_not_muted(both: TwoSites, browser: httpx2.AsyncClient) -> None:
    user = User(both, browser, "north=operator")
    answer = await user.request("POST", f"{ROOT}/cameras/north/made-up/mute", {"for": "1h", "reason": "x"})
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "camera: expected one of this fleet, got north/made-up"},
    )
    ended = await user.request("POST", f"{ROOT}/cameras/north/muted/mute", {"for": "end"})
    assert ended.status_code == 200, "the mute of a deleted camera can be ended"


async def test_the_header_of_a_site_is_computed_once_until_the_fleet_changes(
    both: TwoSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    sees = Sight.sees

    def counted(self: Sight, subject: str) -> bool:
        checked.append(subject)
        return sees(self, subject)

    watch, sight = both.context.watch, Sight(frozenset({"north"}))
    before = watch.header(sight)
    monkeypatch.setattr(Sight, "sees", counted)
    watch._asked.clear()
    assert watch.header(sight) == before
    assert checked == []
    assert watch._asked.is_set(), "a page that shows it keeps the roles up to date"
    both.context.fleet.set_totals(Totals({"north/gate": 7}))
    assert watch.header(sight).dead_letters == 7
    both.context.fleet.set_alerts({})
    both.context.fleet.tick(monotonic_ms())
    assert before.alerts == 1
    assert watch.header(sight).alerts == 0


def test_a_route_without_a_reach_cannot_be_created() -> None:
    async def answer(_request: Request) -> Response:
        return Response()

    with pytest.raises(ValueError, match="GET /x: expected a reach, got none"):
        GuardedRoute("/x", answer)
    with pytest.raises(ValueError, match=r"GET /x/\{site\}: expected no reach next to \{site\}"):
        GuardedRoute("/x/{site}", answer, reach=RightScope.SAME)


@pytest.mark.parametrize("text", ["viewer", "north=operator", "north=operator,south=viewer", "viewer,north=admin"])
def test_roles_are_formatted_as_they_are_parsed(text: str) -> None:
    assert str(Roles.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "north", "north=", "north=boss", "=viewer", "North=viewer", "a/b=viewer", "viewer,"]
)
def test_invalid_roles_are_rejected(text: str) -> None:
    with pytest.raises(ValueError):
        Roles.parse(text)


def test_the_highest_role_for_a_site_applies() -> None:
    roles = Roles.parse("viewer,north=viewer,north=operator,south=admin")
    assert [roles.at(site) for site in ("north", "south", "west", "")] == [
        Right.OPERATOR, Right.ADMIN, Right.VIEWER, Right.VIEWER,
    ]  # fmt: skip
    assert Roles.parse("north=admin").at("west") is None
    assert Roles.parse("north=admin").at("") is None


def test_sites_with_a_common_prefix_are_distinct() -> None:
    sight = Sight(frozenset({"north"}))
    assert [sight.sees(each) for each in ("north/a", "northern/a", "north", "", "a/north")] == [True, *[False] * 4]


async def test_an_operator_of_one_site_switches_its_cameras_and_changes_no_preset(
    both: TwoSites, browser: httpx2.AsyncClient
) -> None:
    user = User(both, browser, "north=operator")
    for root in ("", ROOT):
        for end, fields in (("", {"name": "dusk", "enabled": "true"}), ("/remove", {"name": "night"})):
            assert (await user.request("POST", f"{root}/presets{end}", fields)).status_code == 403
    assert [each["name"] for each in (await user.request("GET", f"{ROOT}/presets", {})).json()] == ["night"]
    answer = await user.request("POST", f"{ROOT}/switches", {"cameras": "north/*", "preset": "night"})
    assert answer.json() == {"outcome": "switched"}
