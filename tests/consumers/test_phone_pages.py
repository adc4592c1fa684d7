"""Pages in Chromium at the width of a phone: their length, forms, streams and ended logins."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect
from sqlalchemy import insert

from benchmarks.harness.browser import CHROMIUM, chromium
from consumers.console.data.rollup import Rollup
from consumers.console.pages.alerts import GALLERY, ON_PAGE
from consumers.console.pages.teach import SHOWN
from consumers.database.tables import quarantine
from infra.prometheus.runbooks import PAGE
from tests.axe import findings
from tests.consumers.console_rig import ConsoleRig, jpeg_scene, poll, raise_alert
from tests.consumers.recorder_rig import CAMERA, Rig, verdict
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
window.fetch = async (...request) => Object.defineProperty(await send(...request), "redirected", { value: true });
"""
"""A script that marks each answer to a script as redirected, like answers of a console that requires a login."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="expected chromium: infra/bootstrap.sh test installs it"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with chromium(PATIENCE_S) as browser:
        yield browser


@pytest.fixture
def phone(running: Browser, console: ConsoleRig, recorder: Rig) -> Iterator[Page]:
    """Yield a phone's browser that reads the console's pages without a network; `recorder` has the database."""
    browser = console.browser()

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.path.endswith("/live"):
            route.abort()
            return
        sent = {name: route.request.headers.get(name, "") for name in ("content-type", "x-csrf-token")}
        path, form = f"{url.path}?{url.query}", route.request.post_data_buffer
        found = browser.request(route.request.method, path, content=form, headers=sent, follow_redirects=True)
        route.fulfill(status=found.status_code, headers=dict(found.headers), body=found.content)

    with running.new_page(viewport={"width": 390, "height": 844}) as page:
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


def test_a_long_name_of_a_camera_leaves_its_label_whole(console: ConsoleRig, phone: Page) -> None:
    console.show([verdict(0, class_name="give-way")], "street/camera-at-the-back-door-of-the-building-in-the-yard")
    console.tick()
    phone.set_viewport_size({"width": 1280, "height": 800})
    phone.goto("http://127.0.0.1/")
    label = phone.locator(".card .verdict")
    lines = label.evaluate("e => { const line = document.createRange(); line.selectNode(e.firstChild); "
        "return line.getClientRects().length; }")  # fmt: skip
    assert lines == 1


def test_the_runbooks_fit_a_phone(console: ConsoleRig, phone: Page) -> None:
    console.context.runbooks = PAGE
    phone.goto("http://127.0.0.1/runbooks")
    assert phone.locator("h3").count() > 10
    assert not phone.evaluate(WIDE)


def test_the_page_of_frames_to_label_is_short(console: ConsoleRig, phone: Page) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    for seq in range(SHOWN + 5):
        frames.keep(("street/camera-at-the-gate", 1, seq), jpeg_scene(seq), "unsure", "unsure", 0.31)
    assert is_short(phone, "/teach")
    expect(phone.locator("#frames figure")).to_have_count(SHOWN)


def test_classes_keep_their_keys_while_frames_are_labelled(console: ConsoleRig, phone: Page) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    for seq, label in enumerate(("9", "10", "", "")):
        frames.keep(("street/gate", 1, seq), jpeg_scene(seq), "unsure", "unsure", 0.31, label)
    phone.goto("http://127.0.0.1/teach")
    for count in (2, 3):
        phone.keyboard.press("1")
        expect(phone.locator(".classes li")).to_have_text([f"1 10 {count}", "2 9 1"])


@pytest.mark.parametrize("show", ["waiting", "labelled"])
def test_a_click_on_a_class_labels_the_selected_frame(console: ConsoleRig, phone: Page, show: str) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    waiting = show == "waiting"
    for seq in range(6):
        frames.keep(
            ("street/gate", 1, seq), jpeg_scene(seq), "unsure", "unsure", 0.31, "" if waiting and seq > 1 else "cat"
        )
    frames.keep(("street/gate", 1, 6), jpeg_scene(6), "unsure", "unsure", 0.31, "dog")
    phone.goto(f"http://127.0.0.1/teach?show={show}")
    phone.wait_for_load_state()
    figure = phone.locator("#frames figure").nth(2)
    name = figure.get_attribute("data-name")
    marked = phone.locator("#frames .current, #frames:not(:has(.current)) figure:first-child")
    expect(marked).to_have_css("outline-style", "solid")
    figure.click()
    phone.locator(".classes button").first.focus()
    expect(marked).to_have_attribute("data-name", name)
    expect(marked).to_have_css("outline-style", "dashed")  # it is selected
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
    console.show([verdict(0, class_name=label, class_group=label, preview=jpeg_scene(1))], camera)
    raise_alert(recorder, "a" * 32, camera)
    raise_alert(recorder, "b" * 32, camera, wanted=label, kind="sighting", confidence=0.9)
    frames = console.context.labelled_frames
    assert frames is not None
    for seq, name in enumerate((label, "")):
        frames.keep((camera, 1, seq), jpeg_scene(seq), "unsure", label, 0.31, name)
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


def test_a_page_of_many_episodes_is_short_and_links_to_older_ones(recorder: Rig, phone: Page) -> None:
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


def test_the_page_of_the_quarantine_is_short(recorder: Rig, phone: Page) -> None:
    names = [f"street/camera-at-the-gate/{1:016x}-{number}" for number in range(GALLERY + 5)]
    with recorder.engine.begin() as connection:
        columns = {column.name: 0 for column in quarantine.columns}
        connection.execute(insert(quarantine), [columns | {"name": name} for name in names])
    assert is_short(phone, "/quarantine")
    expect(phone.locator("main figure")).to_have_count(GALLERY)


def test_the_page_of_a_silent_camera_shows_its_outage_and_counts_its_verdicts(
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
    url = f"http://127.0.0.1/camera/{CAMERA}"
    phone.goto(f"{url}?range=day")
    expect(phone.locator("#classes tbody tr")).to_have_text(["93", "31"])
    expect(phone.locator("#classes-since")).to_contain_text("Counted by the hour, since")
    phone.goto(url)
    expect(phone.locator("#outages tbody tr")).to_contain_text(["2.0 h"])
    expect(phone.locator("#timeline .off")).to_have_count(1)
    expect(phone.locator("#charts")).to_contain_text("A minute appears here when it is over.")


@pytest.mark.parametrize(("ago_s", "is_present"), [(600, False), (60, True)])
def test_a_chart_shows_a_present_value_only_if_there_were_frames_lately(
    console: ConsoleRig, recorder: Rig, phone: Page, ago_s: int, is_present: bool
) -> None:
    now_ms = time.time_ns() // 10**6
    recorder.verdicts([verdict(seq, captured_ms=now_ms - 1_000 * (ago_s + seq)) for seq in range(30)])
    console.show([verdict(200)])
    Rollup(console.context.recorded.engine(), console.context.store.engine).step(now_ms + 60_000)
    phone.goto(f"http://127.0.0.1/camera/{CAMERA}?range=hour")
    value = phone.locator("#charts .value").first
    expect(value).to_have_text(re.compile(r"^\d" if is_present else "^–$"))


def test_an_alert_on_the_timeline_keeps_the_focus_when_the_charts_are_refreshed(
    console: ConsoleRig, recorder: Rig, phone: Page
) -> None:
    console.show([verdict(0)])
    raise_alert(recorder, ago_s=600)
    poll(console)
    phone.clock.install()
    phone.goto(f"http://127.0.0.1/camera/{CAMERA}?range=hour")
    link = phone.locator("#timeline a")
    link.focus()
    link.evaluate("e => { e.dataset.old = 'yes'; }")
    phone.clock.run_for(20_000)
    expect(phone.locator("#timeline a[data-old]")).to_have_count(0)
    expect(link).to_be_focused()


def test_an_alert_on_the_timeline_is_opened_by_a_touch_beside_its_mark(
    console: ConsoleRig, recorder: Rig, phone: Page
) -> None:
    console.show([verdict(0)])
    ids = {ago_s: f"{number:032x}" for number, ago_s in enumerate((30_000, 29_700, 10_000), start=1)}
    for ago_s, alert_id in ids.items():
        raise_alert(recorder, alert_id, ago_s=ago_s)
    poll(console)
    phone.goto(f"http://127.0.0.1/camera/{CAMERA}?range=day")
    expect(phone.locator("#timeline .target")).to_have_count(3)
    boxes = [each.bounding_box() for each in phone.locator("#timeline .target").all()]
    (one, two, alone) = [(box["x"], box["x"] + box["width"]) for box in boxes if box is not None]
    assert alone[1] - alone[0] > 7
    assert one[1] <= two[0] + 0.1
    box = boxes[2]
    assert box is not None
    phone.mouse.click(box["x"] + 1, box["y"] + 5)
    phone.wait_for_url(f"**/alerts/{ids[10_000]}")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_sighting_rule_is_saved_listed_and_removed(
    console: ConsoleRig, recorder: Rig, phone: Page, width: int
) -> None:
    console.show([verdict(0, class_name="cab", class_group="vehicle")], "street/gate")
    phone.set_viewport_size({"width": width, "height": 844})
    dialogs: list[str] = []

    def confirm(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
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
    phone.wait_for_load_state()  # the script that asks for confirmation has been loaded
    phone.get_by_role("button", name="Remove").click()
    expect(phone.locator(".said")).to_have_text("removed")
    expect(phone.locator("main tbody")).to_contain_text("There is no rule")
    assert dialogs == ["Remove the rule for vehicle at street/*?"]
    assert rules(recorder.url) == ()


def test_a_rejected_stream_is_retried_and_an_ended_login_is_reported(phone: Page) -> None:
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


def test_a_page_opened_in_the_background_has_no_stream_until_it_is_visible(phone: Page) -> None:
    phone.add_init_script("Object.defineProperty(document, 'hidden', {value: true, writable: true})")
    streams: list[str] = []

    def stream(route: Route) -> None:
        streams.append(route.request.url)
        route.fulfill(content_type="text/event-stream", body=f"data: <i id=seen>{len(streams)}</i>\n\n")

    phone.route("**/live", stream)
    phone.goto("http://127.0.0.1/")
    expect(phone.locator("#seen")).to_have_text("1")
    phone.wait_for_timeout(2000)  # a visible page would have connected again by now
    assert len(streams) == 1
    phone.evaluate("document.hidden = false, document.dispatchEvent(new Event('visibilitychange'))")
    expect(phone.locator("#seen")).not_to_have_text("1")


def test_charts_and_labels_report_an_ended_login(console: ConsoleRig, phone: Page) -> None:
    console.show([verdict(0)], "street/gate")
    assert console.context.labelled_frames is not None
    console.context.labelled_frames.keep(("street/gate", 1, 1), jpeg_scene(1), "unsure", "unsure", 0.31)
    phone.add_init_script(REDIRECTED)
    phone.goto("http://127.0.0.1/camera/street/gate")
    expect(phone.locator("#charts")).to_contain_text(ENDED)
    phone.goto("http://127.0.0.1/teach")
    phone.keyboard.press("Delete")
    expect(phone.locator("#labelled")).to_have_text(ENDED)


def test_frames_are_selected_by_touch_and_buttons_do_what_keys_do(console: ConsoleRig, phone: Page) -> None:
    frames = console.context.labelled_frames
    assert frames is not None
    for seq in range(4):
        frames.keep(("street/gate", 1, seq), jpeg_scene(seq), "unsure", "unsure", 0.31, "cat" if seq == 3 else "")
    phone.goto("http://127.0.0.1/teach")
    figures = phone.locator("#frames figure")
    for number in (0, 1):
        figures.nth(number).click()
    expect(phone.locator('#frames figure[aria-pressed="true"]')).to_have_count(2)
    figures.nth(1).click()
    expect(phone.locator('#frames figure[aria-pressed="true"]')).to_have_count(1)
    phone.locator(".classes button", has_text="cat").click()
    expect(phone.locator(".classes li", has_text="cat")).to_have_text("1 cat 2")
    phone.get_by_role("button", name="Undo").click()
    expect(phone.locator(".classes li", has_text="cat")).to_have_text("1 cat 1")
    phone.get_by_role("button", name="Discard").click()
    expect(phone.locator("#labelled")).to_have_text("1 discarded")


def test_a_page_whose_login_has_changed_asks_to_be_loaded_again(console: ConsoleRig, phone: Page) -> None:
    phone.goto("http://127.0.0.1/rules")
    own = phone.locator("body").get_attribute("data-session")
    assert own
    push = "mark => document.body.dispatchEvent(new CustomEvent('session', {bubbles: true, detail: {data: mark}}))"
    phone.evaluate(push, own)
    expect(phone.locator("#lost")).not_to_contain_text("has changed")
    phone.evaluate(push, "another")
    expect(phone.locator("#lost")).to_be_visible()
    expect(phone.locator("#lost")).to_contain_text("your login has changed")
    phone.evaluate("() => document.body.dispatchEvent(new CustomEvent('htmx:sse:after:message', {bubbles: true}))")
    expect(phone.locator("#lost")).to_be_visible()


def test_after_an_error_a_form_shows_what_was_typed(console: ConsoleRig, phone: Page) -> None:
    console.show([verdict(0)], CAMERA)
    phone.goto("http://127.0.0.1/drop-policies")
    form = phone.locator('form[action="/drop-policies"]')
    for rest, outcome in (("0.6", "expected"), ("0.3", "saved")):
        form.locator('[name="cameras"]').fill(CAMERA)
        form.locator('[name="lowest"]').fill(rest)
        form.locator("button").click()
        expect(phone.locator(".said", has_text=outcome)).to_be_visible()
        failed = outcome != "saved"
        expect(phone.locator("#failed")).to_have_count(int(failed))
        expect(form.locator('[name="cameras"]')).to_have_value(CAMERA if failed else "")
        expect(form.locator('[name="lowest"]')).to_have_value("0.6" if failed else "0.25")
