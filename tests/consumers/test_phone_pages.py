"""Pages in Chromium, as wide as a phone: nobody scrolls 5,000 pixels, and a stream that is refused is tried again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Dialog, Page, Route, expect
from sqlalchemy import insert

from benchmarks.harness.browser import CHROMIUM, chromium
from consumers.console.data.rollup import Rollup
from consumers.console.pages.alerts import GALLERY, ON_PAGE
from consumers.console.pages.teach import SHOWN
from consumers.database.tables import quarantine
from tests.axe import findings
from tests.consumers.console_rig import ConsoleRig, scene
from tests.consumers.recorder_rig import CAMERA, Rig, verdict
from tests.consumers.test_console_pages import poll, raise_alert
from tests.consumers.test_sighting_rules import rules
from tests.waiting import PATIENCE_S

expect.set_options(timeout=1000 * PATIENCE_S)
MOST_PIXELS = 5_000
HEIGHT = "document.documentElement.scrollHeight"
WIDE = "document.documentElement.scrollWidth > innerWidth"
SILENT = "The console does not respond. This page may be out of date."
ENDED = "Your login has ended. Reload the page to log in."
REDIRECTED = """
const send = window.fetch;
window.fetch = async (...asked) => Object.defineProperty(await send(...asked), "redirected", { value: true });
"""
"""Script after which each answer to a script counts as redirected, as from a console that wants a login."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="expected chromium: infra/bootstrap.sh test installs it"),
]


@pytest.fixture
def phone(console: ConsoleRig, recorder: Rig) -> Iterator[Page]:
    """A phone's browser that reads the console's pages without a network; `recorder` has its database."""
    browser = console.browser()

    def answer(route: Route) -> None:
        place = urlsplit(route.request.url)
        if place.path.endswith("/live"):
            route.abort()
            return
        sent = {name: route.request.headers.get(name, "") for name in ("content-type", "x-csrf-token")}
        path, form = f"{place.path}?{place.query}", route.request.post_data_buffer
        found = browser.request(route.request.method, path, content=form, headers=sent, follow_redirects=True)
        route.fulfill(status=found.status_code, headers=dict(found.headers), body=found.content)

    with chromium(PATIENCE_S) as running:
        page = running.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(1000 * PATIENCE_S)
        page.route("**/*", answer)
        yield page


def is_short(page: Page, path: str) -> bool:
    page.goto(f"http://127.0.0.1{path}")
    assert not page.evaluate(WIDE)
    return int(page.evaluate(HEIGHT)) <= MOST_PIXELS


def test_a_page_of_a_large_fleet_is_short(console: ConsoleRig, phone: Page) -> None:
    for number in range(70):
        console.show([verdict(0)], f"street/camera-at-the-gate-{number}")
    console.tick()
    assert is_short(phone, "/")
    expect(phone.locator("#grid .card")).to_have_count(60)
    expect(phone.locator("#grid .card .name").first).to_be_visible()


def test_the_frames_to_label_are_short(console: ConsoleRig, phone: Page) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    for seq in range(SHOWN + 5):
        frames.keep(("street/camera-at-the-gate", 1, seq), scene(seq), "unsure", "unsure", 0.31)
    assert is_short(phone, "/teach")
    expect(phone.locator("#frames figure")).to_have_count(SHOWN)


def test_classes_keep_their_keys_while_frames_are_labelled(console: ConsoleRig, phone: Page) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    for seq, label in enumerate(("9", "10", "", "")):
        frames.keep(("street/gate", 1, seq), scene(seq), "unsure", "unsure", 0.31, label)
    phone.goto("http://127.0.0.1/teach")
    for count in (2, 3):
        phone.keyboard.press("1")
        expect(phone.locator(".classes li")).to_have_text([f"1 10 {count}", "2 9 1"])


@pytest.mark.parametrize("show", ["waiting", "labelled"])
def test_a_click_on_a_class_labels_the_frame_that_was_clicked_before(
    console: ConsoleRig, phone: Page, show: str
) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    waiting = show == "waiting"
    for seq in range(6):
        frames.keep(("street/gate", 1, seq), scene(seq), "unsure", "unsure", 0.31, "" if waiting and seq > 1 else "cat")
    frames.keep(("street/gate", 1, 6), scene(6), "unsure", "unsure", 0.31, "dog")
    phone.goto(f"http://127.0.0.1/teach?show={show}")
    phone.wait_for_load_state()
    figure = phone.locator("#frames figure").nth(2)
    name = figure.get_attribute("data-name")
    marked = phone.locator("#frames .current, #frames:not(:has(.current)) figure:first-child")
    expect(marked).to_have_css("outline-style", "solid")
    figure.click()
    phone.locator(".classes button").first.focus()
    expect(marked).to_have_attribute("data-name", name)
    expect(marked).to_have_css("outline-style", "solid")
    expect(phone.locator("#frames figure").first).to_have_css("outline-style", "none")
    phone.locator(".classes button", has_text="dog").click()
    expect(phone.locator(".classes li", has_text="dog")).to_have_text("2 dog 2")
    assert {each.name for each in frames.labelled(10) if each.label == "dog"} == {
        name,
        "street/gate/0000000000000001-6",
    }


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_make_no_page_wider_than_the_screen(
    console: ConsoleRig, recorder: Rig, phone: Page, width: int
) -> None:
    camera, label = f"rotterdam-distribution-north/{'b' * 31}", f"delivery_van_{'with_open_doors_' * 3}"
    console.show([verdict(0, class_name=label, class_group=label, preview=scene(1))], camera)
    raise_alert(recorder, "a" * 32, camera)
    raise_alert(recorder, "b" * 32, camera, wanted=label, kind="sighting", confidence=0.9)
    frames = console.context.labelled_frames
    assert frames is not None
    for seq, name in enumerate((label, "")):
        frames.keep((camera, 1, seq), scene(seq), "unsure", label, 0.31, name)
    csrf = {"csrf": console.csrf()}
    muted = console.browser().post(f"/camera/{camera}/mute", data=csrf | {"mute": "1h", "reason": "R" * 200})
    assert muted.status_code == 303
    poll(console)
    phone.set_viewport_size({"width": width, "height": 844})
    for path in (f"/camera/{camera}", "/alerts", "/teach", "/teach?show=labelled"):
        phone.goto(f"http://127.0.0.1{path}")
        assert not phone.evaluate(WIDE), path
    frames.collect(camera, "ada", wanted=True)
    phone.goto("http://127.0.0.1/teach")
    assert not phone.evaluate(WIDE)


def test_a_page_of_many_episodes_is_short_and_leads_to_older_ones(recorder: Rig, phone: Page) -> None:
    for number in range(2 * ON_PAGE + 1):
        raise_alert(recorder, f"{number:032x}", f"street/camera-at-the-gate-{number}", ago_s=60 * number)
    assert is_short(phone, "/alerts")
    expect(phone.locator("article")).to_have_count(ON_PAGE)
    phone.get_by_role("link", name="Older").click()
    phone.get_by_role("link", name="Older").click()
    expect(phone.locator("article")).to_have_count(1)
    expect(phone.locator("article")).to_contain_text(f"street/camera-at-the-gate-{2 * ON_PAGE}")
    expect(phone.get_by_role("link", name="Newer")).to_be_visible()
    expect(phone.get_by_role("link", name="Older")).to_have_count(0)


def test_the_frames_in_quarantine_are_short(recorder: Rig, phone: Page) -> None:
    names = [f"street/camera-at-the-gate/{1:016x}-{number}" for number in range(GALLERY + 5)]
    with recorder.engine.begin() as connection:
        columns = {column.name: 0 for column in quarantine.columns}
        connection.execute(insert(quarantine), [columns | {"name": name} for name in names])
    assert is_short(phone, "/quarantine")
    expect(phone.locator("main figure")).to_have_count(GALLERY)


def test_a_camera_that_is_gone_has_its_outage_on_the_timeline_and_its_verdicts_by_number(
    console: ConsoleRig, recorder: Rig, phone: Page
) -> None:
    now_ms = time.time_ns() // 10**6
    for seq, name in enumerate("3999"):
        recorder.verdicts([verdict(seq, captured_ms=now_ms - 7_200_000, class_name=name)])
    console.show([verdict(4)])
    camera = console.context.fleet.camera(CAMERA)
    assert camera is not None
    camera.heard_ms -= 7_200_000
    Rollup(console.context.recorded.engine(), console.context.store.engine).step(now_ms + 60_000)
    place = f"http://127.0.0.1/camera/{CAMERA}"
    phone.goto(f"{place}?range=day")
    expect(phone.locator("#classes tbody tr")).to_have_text(["93", "31"])
    expect(phone.locator("#classes-since")).to_contain_text("Counted by the hour, since")
    phone.goto(place)
    expect(phone.locator("#outages tbody tr")).to_contain_text(["2.0 h"])
    expect(phone.locator("#timeline .off")).to_have_count(1)
    expect(phone.locator("#charts")).to_contain_text("A minute appears here when it is over.")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_sighting_rule_is_set_listed_and_removed(console: ConsoleRig, recorder: Rig, phone: Page, width: int) -> None:
    console.show([verdict(0, class_name="cab", class_group="vehicle")], "street/gate")
    phone.set_viewport_size({"width": width, "height": 844})
    asked: list[str] = []

    def confirm(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    phone.on("dialog", confirm)
    assert is_short(phone, "/sighting-rules")
    assert not findings(phone)
    expect(phone.locator("main tbody")).to_contain_text("There is no rule")
    phone.get_by_label("Cameras:").fill("street/*")
    phone.get_by_label("Class or group").fill("vehicle")
    phone.get_by_label("Frames in agreement").fill("5")
    phone.get_by_role("button", name="Save").click()
    expect(phone.locator(".said")).to_have_text("saved")
    expect(phone.locator("main tbody tr")).to_contain_text(["street/*vehicle5"])
    assert not phone.evaluate(WIDE)
    assert not findings(phone)
    phone.wait_for_load_state()  # the script of the page asks before it removes
    phone.get_by_role("button", name="Remove").click()
    expect(phone.locator(".said")).to_have_text("removed")
    expect(phone.locator("main tbody")).to_contain_text("There is no rule")
    assert asked == ["Remove the rule for vehicle at street/*?"]
    assert rules(recorder.url) == ()


def test_a_refused_stream_is_tried_again_and_an_ended_login_is_named(phone: Page) -> None:
    now: dict[str, Any] = {"status": 429, "json": {"error": "streams: expected at most 8"}}
    phone.route("**/live", lambda route: route.fulfill(**now))
    phone.goto("http://127.0.0.1/")
    lost = phone.locator("#lost")
    expect(lost).to_have_text(SILENT)
    expect(lost).to_be_visible()
    expect(phone.locator("body")).not_to_contain_text("expected at most 8")
    now = {"content_type": "text/event-stream", "body": "data: <i></i>\n\n"}
    expect(lost).to_be_hidden()
    now = {"status": 401, "json": {"error": "login is missing"}}
    expect(lost).to_be_visible()
    expect(lost).to_have_text(ENDED)


def test_a_page_that_is_opened_in_the_background_has_no_stream_until_it_is_seen(phone: Page) -> None:
    phone.add_init_script("Object.defineProperty(document, 'hidden', {value: true, writable: true})")
    streams: list[str] = []

    def stream(route: Route) -> None:
        streams.append(route.request.url)
        route.fulfill(content_type="text/event-stream", body=f"data: <i id=seen>{len(streams)}</i>\n\n")

    phone.route("**/live", stream)
    phone.goto("http://127.0.0.1/")
    expect(phone.locator("#seen")).to_have_text("1")
    phone.wait_for_timeout(2000)  # an open page has connected again by then
    assert len(streams) == 1
    phone.evaluate("document.hidden = false, document.dispatchEvent(new Event('visibilitychange'))")
    expect(phone.locator("#seen")).not_to_have_text("1")


def test_charts_and_labels_name_an_ended_login(console: ConsoleRig, phone: Page) -> None:
    console.show([verdict(0)], "street/gate")
    assert console.context.labelled_frames is not None
    console.context.labelled_frames.keep(("street/gate", 1, 1), scene(1), "unsure", "unsure", 0.31)
    phone.add_init_script(REDIRECTED)
    phone.goto("http://127.0.0.1/camera/street/gate")
    expect(phone.locator("#charts")).to_contain_text(ENDED)
    phone.goto("http://127.0.0.1/teach")
    phone.keyboard.press("Delete")
    expect(phone.locator("#labelled")).to_have_text(ENDED)
