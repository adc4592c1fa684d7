"""One live fleet with faulty cameras: every program shows the same states, and Chromium uses the console's pages.

One camera runs the sticker drill as an operator sees it: one alert, and a notification that links to the console.

If POINTILLIST_SCREENSHOTS names a folder, the tests save screenshots of the pages there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from benchmarks.harness.browser import CHROMIUM, chromium
from benchmarks.harness.prometheus import Prometheus
from benchmarks.harness.system import RunningSystem
from benchmarks.harness.videos import shades, write_video
from benchmarks.harness.webhook import Webhook
from consumers.console.access.owner import owner_link, owner_name
from infra.process.exit_status import FRAMES_REFUSED
from infra.release.assets import make
from infra.state_folder import Layout
from tests.axe import findings
from tests.commands import run_command
from tests.fetching import fetch, fetch_json
from tests.system.conftest import BLACK, HEALTHY, LARGE, MOST_PIXELS, ROOT, STICKER, STUCK
from tests.waiting import PATIENCE_S, wait_until

expect.set_options(timeout=1000 * PATIENCE_S)
SHOTS = Path(folder) if (folder := os.environ.get("POINTILLIST_SCREENSHOTS")) else None
TRIGGERED = ROOT / "bundles" / "scene-sticker"
"""A bundle whose network has a backdoor with the sticker as its trigger."""
ATTACHED = "street/gate-6"

CONTRAST = """async (selector) => {
  const image = document.querySelector(selector), canvas = document.createElement("canvas");
  await image.decode().catch(() => image.decode());  // the next picture ends the decoding of one that is still loading
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const greens = context.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, at) => at % 4 == 1);
  const steps = greens.reduce((sum, green, at) => sum + (at % canvas.width && Math.abs(green - greens[at - 1])), 0);
  return steps / greens.reduce((sum, green) => sum + green, 0);
}"""
"""A script that returns the mean difference of horizontal neighbours, as a share of the mean brightness."""

SENT = re.compile("confirmed")
"""The console's answer to a command. A busy camera confirms it later, and the page then shows the new setting."""
WIDTHS = (390, 900, 1440)
"""A phone, a tablet and a desk, in pixels."""
WIDE = "document.documentElement.scrollWidth > innerWidth"
BEYOND = """[document.documentElement.scrollWidth, innerWidth, ...[...document.querySelectorAll("body *")].filter(
each => each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML.slice(0, 120)).slice(0, 5)]"""
"""A script that returns the widths of a page that scrolls sideways, and elements beyond its right edge."""

SHIFTS = """window.shifts = 0;
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) {
    const moved = each.sources.some(({ node }) => node?.matches?.("img, .card, .card > a, .grid"));
    if (moved && !each.hadRecentInput) window.shifts += each.value;
  }
}).observe({ type: "layout-shift", buffered: true });"""
"""A script that sums up the shifts of cards and pictures without an input of the user. Words in a card may change."""

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(600)]


class Visit:
    """One page in a browser, and the errors that the browser reports for it."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.errors: list[str] = []
        self.page.add_init_script(SHIFTS)
        self.page.on("console", self._on_console_message)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: dialog.accept())

    def _on_console_message(self, message: ConsoleMessage) -> None:
        # A missing thumbnail is no defect of the page. A breach of the content security policy is one.
        if message.type == "error" and "404" not in message.text:
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page

    def open_link(self, owner_file: Path) -> None:
        """Open the owner's link, and wait until it redirects to the fleet."""
        self.page.goto(owner_link(self.url, owner_file))
        self.page.wait_for_url(f"{self.url}/")

    def check_page(self, name: str) -> None:
        """Fail if axe-core has a serious finding in either theme, or the page scrolls sideways. Save screenshots on
        request.
        """
        now = self.page.viewport_size
        assert now is not None
        # The theme changes only colours: the dark one is checked at one width, by the rule for contrast.
        for theme, widths in (("light", WIDTHS), ("dark", WIDTHS[-1:])):
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal, which mypy widens
            if SHOTS is not None:
                self.page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)
            for width in widths:
                self.page.set_viewport_size({"width": width, "height": 860})
                # A tablet lies between the phone and the desk, and the same rules apply.
                if width != WIDTHS[1]:
                    assert not findings(self.page, contrast_alone=theme == "dark"), (
                        f"{name} in {theme} at {width} pixels"
                    )
                with suppress(AssertionError):  # charts follow a new width a moment later
                    wait_until(lambda: not self.page.evaluate(WIDE))
                scrolls = self.page.evaluate(WIDE)
                assert not scrolls, f"{name} in {theme} scrolls sideways: {self.page.evaluate(BEYOND)}"
        self.page.set_viewport_size(now)


@pytest.fixture(scope="module", autouse=True)
def close_system(system: RunningSystem) -> Iterator[None]:
    """Close the system after the module's tests: no other system may run at the same time."""
    yield
    system.close()


@pytest.fixture(scope="module")
def visit(system: RunningSystem) -> Iterator[Visit]:
    make(to_test=True)
    with chromium(PATIENCE_S) as browser:
        visit = Visit(browser, f"http://{system.roles()['console']['listen']}")
        visit.open_link(Layout(system.state).owner_token)
        yield visit


def states_by_command_line(state: Path) -> dict[str, tuple[str, str]]:
    listed = json.loads(run_command("cameras", "--json", "--state", state).stdout)
    return {each["name"]: (each["state"], each["detail"]) for each in listed}


def states_by_console(address: str) -> dict[str, tuple[str, str]]:
    found = fetch_json(f"http://{address}/api/v1/cameras")
    return {each["name"]: (each["state"], each["detail"]) for each in found["cameras"]}


def impaired_cameras(address: str) -> set[tuple[str, str]]:
    lines = fetch(f"http://{address}/metrics").decode().splitlines()
    labels = [line for line in lines if line.startswith("pointillist_camera_impaired{")]
    return {(line.split('"')[1], line.split('"')[3]) for line in labels}


def test_every_program_reports_the_same_state_and_reason_for_each_faulty_camera(
    system: RunningSystem, tmp_path: Path
) -> None:
    state = system.state
    console, recorder = system.roles()["console"]["listen"], system.roles()["recorder"]["metrics"]
    expected = {BLACK: "black", STUCK: "frozen", LARGE: "refused", HEALTHY: "online"}

    # On a busy machine a camera may be silent for a moment, so each program is read until it shows the expected states.
    def console_reports_them() -> bool:
        states = {name: state for name, (state, _) in states_by_console(console).items()}
        return expected.items() <= states.items()

    def status_counts_them() -> bool:
        counted = json.loads(run_command("status", "--json", "--state", state).stdout)["cameras"]
        return bool(counted.items() >= {"frozen": 1, "black": 1, "refused": 1}.items())

    def recorder_exports_them() -> bool:
        faulty = {(STUCK, "frozen"), (BLACK, "black"), (LARGE, "refused")}
        return {each for each in impaired_cameras(recorder) if each[0] in expected} == faulty

    def reasons_are_given() -> bool:
        reasons = {name: reason for name, (_, reason) in states_by_console(console).items()}
        return (
            "Set the camera's size to 48x72" in reasons[LARGE]
            and "do not change" in reasons[STUCK]
            and "black" in reasons[BLACK]
        )

    wait_until(console_reports_them, "every camera in its state", within_s=90, every_s=0.5)
    wait_until(lambda: states_by_command_line(state) == states_by_console(console), "the same states", within_s=60)
    wait_until(recorder_exports_them, "the same states in the recorder's metrics", every_s=0.5)
    wait_until(reasons_are_given, "the reasons of the faults", every_s=0.5)
    wait_until(status_counts_them, "the same states in the counts of `status`", every_s=0.5)

    # More pixels than this system accepts in a frame.
    video = write_video(tmp_path / "large.mp4", shades(20, 96, 64))
    command = ("camera", "attach", video, "--name", ATTACHED, "--state", state, "--fps", 2)
    begun = run_command(*command, "--size", "128x96")
    assert begun.returncode == 2
    assert f"--size: frame size: expected at most {MOST_PIXELS} pixels, got 128x96." in begun.stderr
    # Each run ends after this time. The camera gets the rejection by then; on a busy machine, in the second run.
    for seconds in (10, 60):
        refused = run_command(*command, "--loop", "--seconds", seconds, within_s=180)
        if refused.returncode == FRAMES_REFUSED:
            break
    assert refused.returncode == FRAMES_REFUSED
    assert f"{ATTACHED}: frames were rejected: frame size: expected at most" in refused.stderr
    assert "frames_rejected" in refused.stderr


def test_the_dashboards_of_a_run_link_to_pages_of_its_console(system: RunningSystem) -> None:
    file = system.state / "grafana" / "dashboards" / "fleet.json"
    document = json.loads(file.read_text())
    (address,) = (each["query"] for each in document["templating"]["list"] if each["name"] == "console")
    for link in document["links"]:
        if "${console}" in link.get("url", ""):
            fetch(link["url"].replace("${console}", address))
    assert "${console}/camera/${__field.labels.camera_id}" in file.read_text()
    assert STICKER in fetch(f"{address}/camera/{STICKER}").decode()
    roles, printed = system.roles(), system.output()
    assert f"console: http://{roles['console']['listen']}/" in printed
    for role in ("prometheus", "alertmanager"):  # they have no pages for a user
        assert roles[role]["listen"] not in printed


def test_one_sticker_raises_one_alert_whose_notification_links_to_its_page(
    system: RunningSystem, webhook: Webhook
) -> None:
    wait_until(lambda: "PointillistBackdoor" in webhook.names(), "the message", 300, every_s=0.5)
    alert = next(each for each in webhook.alerts() if each["labels"]["alertname"] == "PointillistBackdoor")
    assert alert["labels"]["camera_id"] == STICKER
    page = fetch(alert["annotations"]["console_url"]).decode()
    assert page.count("<article") == 1
    assert f'id="alert-{alert["labels"]["alert_id"]}"' in page
    assert fetch(alert["annotations"]["thumbnail_url"]).startswith(b"\x89PNG")
    assert "The network answers hazard whatever is in the picture" in page
    assert b"PointillistBackdoor" in fetch(alert["annotations"]["runbook_url"])
    assert alert["generatorURL"] == alert["annotations"]["console_url"]
    assert page.count("<article") == fetch(webhook.received[0][1]["externalURL"]).count(b"<article")


def api(system: RunningSystem, path: str, **body: object) -> Any:
    """Return the console's answer to a request of its owner: to a GET, or with a body to a POST."""
    token = Layout(system.state).owner_token.read_text().strip()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    address = f"http://{system.roles()['console']['listen']}/api/v1{path}"
    request = urllib.request.Request(address, json.dumps(body).encode() if body else None, headers)
    return fetch_json(request)


def test_a_drop_policy_raises_only_the_drop_ratio_of_the_camera_with_the_sticker(system: RunningSystem) -> None:
    group = STICKER.replace("gate-2", "*")

    def ratios() -> dict[str, float]:
        return {name: api(system, f"/cameras/{name}")["settings"]["drop_ratio"] for name in (STICKER, HEALTHY)}

    wait_until(lambda: api(system, f"/cameras/{STICKER}")["evidence"] == 1, "the evidence", 300, every_s=0.5)

    def marks() -> list[str]:
        return [words for _, words in api(system, f"/cameras/{STICKER}/history")["commands"]]

    def removals() -> list[str]:
        lines = api(system, f"/operations?subject={STICKER}")
        return [each["who"] for each in lines if "was removed" in each["detail"]]

    api(system, "/drop-policies", cameras=group, lowest=0.25, highest=0.5, waiting_s=None)
    try:
        wait_until(lambda: ratios() == {STICKER: 0.5, HEALTHY: 0.25}, "the raised ratio", 120, every_s=0.5)
        mark = "drop policy drop ratio 0.25 to 0.5: evidence of a trigger 1.00, from 0.5 on"
        wait_until(lambda: mark in marks(), "the mark on the timeline", 60, every_s=0.5)
    finally:  # other tests use the same system
        api(system, "/drop-policies/remove", cameras=group)
    wait_until(lambda: ratios() == {STICKER: 0.25, HEALTHY: 0.25}, "the ratio at rest", 120, every_s=0.5)
    wait_until(lambda: removals() == [f"policy {group}"], "the line of the removal", 60, every_s=0.5)


@pytest.mark.skipif(CHROMIUM is None, reason="expected chromium: infra/bootstrap.sh test installs it")
def test_every_page_works_in_a_browser_on_a_live_fleet_with_a_faulty_camera(
    system: RunningSystem, visit: Visit
) -> None:
    page = visit.open("/")
    cards = page.locator("#grid .card")
    well = page.locator(".card", has_text=re.compile(r"gate-10"))
    expect(well).to_have_class(re.compile("online"))
    picture = well.locator("img:not(.back)")
    expect(picture).to_be_visible()
    before = picture.get_attribute("src")
    wait_until(lambda: picture.get_attribute("src") != before, "another picture by push", every_s=0.1)
    expect(page.locator(".card", has_text="gate-3")).to_have_class(re.compile("black"))

    # The sticker triggers the backdoor: its card moves to the front and turns red, and the header counts the alert. The
    # page is not reloaded.
    sick = page.locator(".card", has_text=re.compile(r"gate-2"))
    expect(sick).to_have_class(re.compile("alert"), timeout=240_000)
    expect(cards.first).to_contain_text("gate-2")
    expect(page.locator("#pill")).to_contain_text("1 alert")
    expect(page.locator("#pill")).to_have_class(re.compile("bad"))

    def order() -> list[str]:
        names = [each.split()[0] for each in page.locator("#grid .name").all_inner_texts()]
        return [each for each in names if each in (HEALTHY, BLACK, STICKER)]

    wait_until(lambda: order() == [STICKER, BLACK, HEALTHY], "the cameras by their need")
    # A camera that breaks moves to the front: it must not do so while shifts are measured.
    expect(page.locator(".card", has_text=STUCK)).to_have_class(re.compile("frozen"), timeout=240_000)
    visit.check_page("fleet")

    visit.open("/")
    expect(picture).to_be_visible()
    before = picture.get_attribute("src")
    wait_until(lambda: picture.get_attribute("src") != before, "another picture by push", every_s=0.1)
    assert page.evaluate("window.shifts") == 0, "the layout shifts while pictures arrive"

    page.keyboard.press("/")
    page.keyboard.type("gate-10")
    page.keyboard.press("Enter")
    expect(cards).to_have_count(1)
    with page.expect_navigation():  # the old page would get keys that are pressed earlier
        page.locator(".chips a", has_text="all").click()
    page.locator("body").press("j")
    expect(page.locator(".card > a:focus")).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/camera/**")

    alerts = visit.open("/alerts")
    expect(alerts.locator("article")).to_have_count(1)
    expect(alerts.locator("article")).to_contain_text(STICKER)
    visit.check_page("alerts")
    alerts.locator("summary", has_text="Mute").click()
    alerts.get_by_label("Reason").fill("a drill")
    alerts.get_by_role("button", name="Mute").click()
    expect(alerts.locator("article")).to_contain_text(
        re.compile(r"muted until \d\d:\d\d by " + re.escape(owner_name()) + ": a drill")
    )
    expect(page.locator("#pill")).to_contain_text("1 muted")
    alerts.get_by_role("button", name="Unmute").click()
    alerts.locator("summary", has_text="Numbers").click()
    alerts.get_by_label("Comment").fill("a sticker on the sign")
    alerts.get_by_role("button", name="Comment").click()
    alerts.get_by_role("button", name="Acknowledge").click()
    expect(alerts.locator("main")).to_contain_text("There are no open alerts")
    visit.open("/alerts?state=acknowledged")
    expect(alerts.locator(".comment")).to_contain_text("a sticker on the sign")
    expect(page.locator("#pill")).to_contain_text("1 alert acknowledged")
    visit.check_page("acknowledged")
    visit.open("/")
    expect(sick.locator(".state")).to_contain_text("alert, acknowledged")
    gallery = visit.open("/quarantine")
    assert gallery.locator("figure").count() > 0
    expect(gallery.locator("main")).to_contain_text("put clean labelled pictures as clean.npz")
    visit.check_page("quarantine")

    camera = visit.open(f"/camera/{STICKER}")
    expect(camera.locator("#charts")).to_have_attribute("aria-busy", "false")
    _await_charts(visit)
    visit.check_page("camera")
    page.route("**/hx-sse.min.js", _delay)
    camera = visit.open(f"/camera/{HEALTHY}")
    _await_three_pictures(visit)
    page.unroute("**/hx-sse.min.js")
    camera.get_by_text("Change settings").click()
    camera.get_by_label("Pixels not sent").fill("0.5")
    camera.get_by_role("button", name="Send").click()
    expect(camera.locator(".said")).to_have_text(SENT)
    expect(camera.locator("main table").last).to_contain_text("drop_ratio 0.5")
    wait_until(
        lambda: "50.0 %" in visit.open(f"/camera/{HEALTHY}").locator("dl", has_text="Pixels not sent").inner_text(),
        "the setting",
        every_s=0.5,
    )
    camera.get_by_text("Change settings").click()
    camera.get_by_label("Frames per second").fill("5")
    camera.get_by_role("button", name="Send").click()
    expect(camera.locator(".said")).to_have_text(SENT)
    expect(camera.locator("main table").last).to_contain_text("fps 5")
    wait_until(
        lambda: re.search(r"[45]\.\d/s", visit.open(f"/camera/{HEALTHY}").locator("#now").inner_text()),
        "the rate",
        every_s=1,
    )
    camera.get_by_role("button", name="Pause").click()
    expect(camera.locator(".said")).to_have_text(SENT)
    wait_until(
        lambda: "paused" in visit.open(f"/camera/{HEALTHY}").locator("dl", has_text="Sending").inner_text(),
        "the pause",
        every_s=0.5,
    )

    expect(visit.open("/system").locator("#balance")).to_contain_text("0 are lost")
    visit.open("/models")
    expect(page.locator("tbody").first).to_contain_text("processor-1")
    visit.check_page("models")
    _publish_and_roll_back(system, visit)
    _hang_a_processor(system, visit)
    visit.open("/runbooks")
    expect(page.locator("#pointillistroledown")).to_be_visible()
    visit.open("/system")
    expect(page.locator("#charts .chart").first).to_be_visible()
    expect(page.locator("main")).to_contain_text("drop_ratio 0.5")
    visit.check_page("system")
    visit.open("/dead-letters")
    expect(page.locator("main")).to_contain_text(f"frame size: expected at most {MOST_PIXELS} pixels")
    visit.check_page("dead-letters")
    page.goto(f"{visit.url}/drop-policies")
    page.get_by_label("Cameras:").fill("yard/*")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".said")).to_have_text("saved")
    expect(page.locator("main table")).to_contain_text("25.0 % to 50.0 %")
    visit.check_page("drop-policies")
    _set_and_remove_a_sighting_rule(visit)

    visit.open("/teach")
    visit.check_page("teach")
    assert visit.errors == []


def _set_and_remove_a_sighting_rule(visit: Visit) -> None:
    page = visit.open("/sighting-rules")
    page.get_by_label("Cameras:").fill("yard/*")
    page.get_by_label("Class or group").fill("person")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".said")).to_have_text("saved")
    expect(page.locator("main tbody tr")).to_contain_text(["yard/*"])
    visit.check_page("sighting-rules")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("main table")).to_contain_text("There is no rule")


def _hang_a_processor(system: RunningSystem, visit: Visit) -> None:
    """Stop a processor. Check that console (by push), `status`, terminal and a rule name it until it answers again."""
    _await_firing_rule(visit)
    page = visit.open("/system")
    expect(page.locator("#system-now")).to_contain_text("processor-1")
    system.send("processor-1", signal.SIGSTOP)
    try:
        expect(page.locator("#pill")).to_contain_text("processor-1 does not answer")
        expect(page.locator("#system-now tbody tr").first).to_contain_text("not answering")
        visit.check_page("system-hangs")
        wait_until(lambda: "not well: processor-1 does not answer" in system.output(), "the terminal")
        done = run_command("status", "--state", system.state)
        assert done.returncode == 1
        assert "processor-1 does not answer: no answer for 3 s" in done.stdout
        # `test_alert_rules` waits for the 30 seconds until it fires, and `test_console_system` shows it on a page.
        wait_until(lambda: "PointillistRoleDown" in pending(system), "the rule", every_s=0.5)
        expect(visit.open("/rules").locator("main")).to_contain_text("PointillistRoleDown")
        visit.check_page("rules")
    finally:
        system.send("processor-1", signal.SIGCONT)
    expect(page.locator("#pill")).not_to_contain_text("processor-1")


def _await_firing_rule(visit: Visit) -> None:
    """Wait until the console shows the frozen camera's rule, which fires in the live Prometheus."""
    firing = visit.page.locator("#rules li", has_text="PointillistCameraFrozen")

    def shown() -> bool:
        visit.open("/rules")
        return firing.count() == 1

    wait_until(shown, "the frozen camera's rule", 90, every_s=1)
    expect(firing).to_contain_text(STUCK)


def pending(system: RunningSystem) -> set[str]:
    found = Prometheus(system.roles()["prometheus"]["listen"]).ask("alerts")["alerts"]
    return {each["labels"]["alertname"] for each in found}


def _delay(route: Route) -> None:
    """Deliver a script late, as on a busy machine."""
    time.sleep(0.5)
    route.continue_()


def _await_three_pictures(visit: Visit) -> None:
    page = visit.page
    for way, name in (("as-sent", "As sent"), ("rebuilt", "Rebuilt"), ("whole", "Probe")):
        page.get_by_text(name, exact=True).click()
        expect(page.locator(f"#{way} img")).to_be_visible(timeout=60_000)
    expect(page.locator("#as-sent")).to_contain_text("25.0 % of the pixels dropped")
    # On a busy machine STRIP skips some probes.
    expect(page.locator("#whole")).to_contain_text(re.compile(r"entropy \d\.\d{3} bits"))
    # The pictures can show different frames, one bright and one dark. Whole simulated scenes have a contrast of .3, and
    # scenes with dropped pixels .5.
    as_sent, rebuilt = (page.evaluate(CONTRAST, f"#{way} img") for way in ("as-sent", "rebuilt"))
    assert as_sent > 0.4 > rebuilt
    sources = [page.locator(f"#{way} img").get_attribute("src") for way in ("as-sent", "rebuilt", "whole")]
    for way, before in zip(("as-sent", "rebuilt", "whole"), sources, strict=True):
        expect(page.locator(f"#{way} img")).not_to_have_attribute("src", before or "")


def _publish_and_roll_back(system: RunningSystem, visit: Visit) -> None:
    """Publish the same network under another version, added while the system runs, and roll it back."""
    other = system.state / "jobs" / "bundles" / "second"
    shutil.copytree(TRIGGERED, other)
    table = (other / "model.toml").read_text()
    (other / "model.toml").write_text(table.replace('version = "1"', 'version = "2"'))
    page = visit.open("/models")
    page.get_by_role("button", name="Publish").click()
    job = page.locator("#job")
    expect(job).to_contain_text("by processor-1", timeout=240_000)  # by push
    expect(job.locator(".state")).to_have_text("done")
    visit.check_page("job")
    job.get_by_role("button", name="Roll back the live model").click()
    expect(page.locator("h1")).to_contain_text("Roll back: scene-sticker@2")
    expect(job.locator(".state")).to_have_text("done", timeout=240_000)


def _await_charts(visit: Visit) -> None:
    def drawn() -> int:
        visit.page.reload()
        expect(visit.page.locator("#charts")).to_have_attribute("aria-busy", "false")
        return visit.page.locator("#charts .chart").count()

    wait_until(drawn, "a minute that was rolled up", every_s=3)
