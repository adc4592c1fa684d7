"""The fleet page: the content and order of its cards, and pushed changes."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import update

from benchmarks.harness.recorder_store import MadeRecord
from consumers.cameras.camera import Camera
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State, StateWithReason
from consumers.console.access.gate import POLICY
from consumers.console.background.tasks import follow_forgotten
from consumers.console.data.cards import DEMONSTRATIONS, REAL_SOURCES
from consumers.console.data.commands import SUPERSEDED, Commands
from consumers.console.data.fleet import Query
from consumers.console.data.store import Store
from consumers.console.pages.fleet import Changes
from consumers.database.console_store import forgotten, read_forgotten
from consumers.records.rows import CameraRow
from processors.bundle import shipped_bundle
from processors.bundle.model_toml import read_settings
from producers.sources.settings import REAL_KINDS
from schemas.clock import monotonic_ms
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE, Candidate, Meta, Verdict, Window
from schemas.transport.access import MqttAccess
from tests.consumers.console_rig import CONSOLE_KEYS, OWNER, ConsoleRig, jpeg_scene
from tests.consumers.recorder_rig import BOOT, CAMERA, sign_as_processor, verdict


def names(rig: ConsoleRig, **query: str | int) -> list[str]:
    return [card.name for card in rig.context.fleet.view(Query(**query)).cards]  # type: ignore[arg-type]


def status_row(camera: str, state: int, detail: str = "") -> CameraRow:
    now_ms = time.time_ns() // 10**6
    return CameraRow(camera, state, now_ms, detail, b"", b"", now_ms)


def test_the_worst_camera_comes_first(bare_rig: ConsoleRig) -> None:
    fleet = bare_rig.context.fleet
    for name in ("lab/cam-10", "lab/cam-2", "lab/off", "lab/bad", "lab/struck"):
        bare_rig.show([verdict(0)], name)
    fleet.record_status(status_row("lab/off", OFFLINE), 0, monotonic_ms())
    fleet.record_status(status_row("lab/bad", DEGRADED, "the disk is full"), 0, monotonic_ms())
    fleet.set_alerts({"lab/struck": ["a1"]})
    bare_rig.tick()
    assert names(bare_rig) == ["lab/struck", "lab/off", "lab/bad", "lab/cam-2", "lab/cam-10"]
    view = fleet.view(Query())
    assert view.counts == {"alert": 1, "offline": 1, "degraded": 1, "online": 2}
    assert names(bare_rig, state="online") == ["lab/cam-2", "lab/cam-10"]
    assert names(bare_rig, text="CAM-1") == ["lab/cam-10"]
    assert names(bare_rig, site="yard") == []


def test_a_card_shows_frames_per_second_and_saved_bytes(bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in range(4):
        monkeypatch.setattr("consumers.console.data.feed.monotonic_ms", lambda at=second: 1_000 * at)
        # The console reads two verdicts of each five frames; it skips the others but counts them.
        bare_rig.feed.show(_records(bare_rig, [verdict(5 * second), verdict(5 * second + 1)]))
    bare_rig.context.fleet.tick(3_000)
    card = bare_rig.context.fleet.card(CAMERA)
    assert card is not None
    assert card.frames_per_second == 5.0
    assert card.saved == round(1 - 1768 / (32 * 24 * 3), 3)


def test_the_rate_of_a_slow_camera_is_shown_per_minute(bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(11):
        monkeypatch.setattr("consumers.console.data.feed.monotonic_ms", lambda at=number: 30_000 * at)
        for name in ("lab/slow-1", "lab/slow-2"):
            bare_rig.feed.show(_records(bare_rig, [verdict(number)], name))
    for name in ("lab/slow-1", "lab/slow-2"):
        camera = bare_rig.context.fleet.camera(name)
        assert camera is not None
        camera.longest_gap_s = 30
    bare_rig.context.fleet.tick(300_000)
    card = bare_rig.context.fleet.card("lab/slow-1")
    assert card is not None
    assert card.frames_per_second == 0.0333
    assert "4 frames/min" in bare_rig.context.fleet.view(Query()).sentence
    assert "<dd>2/min</dd>" in bare_rig.browser().get("/camera/lab/slow-1").text


def test_a_deleted_camera_breaks_no_page_before_the_next_tick(
    bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(4):
        monkeypatch.setattr("consumers.console.data.feed.monotonic_ms", lambda at=second: 1_000 * at)
        bare_rig.feed.show(_records(bare_rig, [verdict(5 * second)]))
    fleet = bare_rig.context.fleet
    fleet.tick(3_000)
    assert fleet.traffic().frames_per_second == 5.0
    fleet.forget_all({CAMERA: time.time_ns() // 10**6})
    browser = bare_rig.browser()
    assert {browser.get(page).status_code for page in ("/", "/system", "/api/v1/cameras")} == {200}


def _records(rig: ConsoleRig, verdicts: list[Verdict], camera: str = CAMERA) -> list[MadeRecord]:
    topic = rig.context.settings.verdicts_topic
    return [
        MadeRecord(topic, 0, n, camera.encode(), sign_as_processor(message, camera))
        for n, message in enumerate(verdicts)
    ]


def test_an_unsigned_verdict_shows_nothing(bare_rig: ConsoleRig) -> None:
    forged = verdict(0).SerializeToString()
    bare_rig.feed.show([MadeRecord(bare_rig.context.settings.verdicts_topic, 0, 0, CAMERA.encode(), forged)])
    bare_rig.tick()
    assert names(bare_rig) == []


def test_a_camera_is_shown_in_its_saved_state_with_the_reason(bare_rig: ConsoleRig) -> None:
    bare_rig.show([verdict(0)])
    assert bare_rig.context.fleet.view(Query()).counts == {"online": 1}
    bare_rig.context.fleet.apply_states(
        [SavedState(CAMERA, StateWithReason(State.FROZEN, "its pictures do not change"), 1, 10.0)]
    )
    bare_rig.tick()
    assert bare_rig.context.fleet.view(Query()).counts == {"frozen": 1}
    assert "its pictures do not change" in bare_rig.browser().get("/").text
    bare_rig.tick(later_ms=11_000)
    assert bare_rig.context.fleet.view(Query()).counts == {"silent": 1}
    bare_rig.context.fleet.apply_states(
        [SavedState(CAMERA, StateWithReason(State.PAUSED, "paused by a command"), 1, 10.0)]
    )
    bare_rig.tick(later_ms=60_000)
    assert bare_rig.context.fleet.view(Query()).counts == {"paused": 1}


def test_silence_is_checked_for_a_few_cameras_per_tick(bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.console.data.fleet._CHECKED_AT_ONCE", 2)
    for number in range(5):
        bare_rig.show([verdict(0)], f"lab/cam-{number}")
    silent = []
    for second in range(4):
        bare_rig.tick(later_ms=60_000 + 1_000 * second)
        silent.append(bare_rig.context.fleet.view(Query()).counts.get("silent", 0))
    assert silent[0] > 0
    assert silent[-1] == 5
    assert all(later - earlier <= 2 for earlier, later in pairwise([0, *silent]))


def test_a_camera_that_has_restarted_while_kafka_was_away_is_shown_by_its_saved_row(bare_rig: ConsoleRig) -> None:
    bare_rig.show([verdict(0)])
    fleet = bare_rig.context.fleet
    shown = fleet.camera(CAMERA)
    assert shown is not None
    assert shown.last is not None
    earlier = shown.last._replace(boot=BOOT - 1, recorded_ms=shown.last.recorded_ms + 500)
    later = shown.last._replace(boot=BOOT + 1, class_name="yield", recorded_ms=shown.last.recorded_ms + 60_000)
    for saved, verdict_of_card, state in ((earlier, "stop", State.SILENT), (later, "yield", State.ONLINE)):
        fleet.merge_saved(Camera(CAMERA, last=saved), 0, monotonic_ms() + 60_000)
        bare_rig.tick(later_ms=60_000)
        card = fleet.card(CAMERA)
        assert card is not None
        assert (card.verdict, card.state) == (verdict_of_card, state)


def test_a_card_has_the_capture_time_of_the_last_frame_also_after_a_clock_was_set_back(bare_rig: ConsoleRig) -> None:
    now_ms = time.time_ns() // 10**6
    bare_rig.show([verdict(0, captured_ms=now_ms - 20), verdict(1, captured_ms=now_ms - 60_000)])
    card = bare_rig.context.fleet.card(CAMERA)
    assert card is not None
    assert card.captured_ms == now_ms - 60_000
    bare_rig.show([verdict(2, captured_ms=now_ms + 3_600_000)])
    card, camera = bare_rig.context.fleet.card(CAMERA), bare_rig.context.fleet.camera(CAMERA)
    assert card is not None
    assert camera is not None
    assert camera.last is not None
    assert card.captured_ms == camera.last.recorded_ms


def test_the_last_picture_has_its_own_url(bare_rig: ConsoleRig, tmp_path: Path) -> None:
    jpeg = jpeg_scene()
    bare_rig.show([verdict(0, preview=jpeg)])
    browser, url = bare_rig.browser(), f"/picture/{CAMERA}.jpg?{BOOT:x}-0"
    assert url in browser.get("/").text
    answer = browser.get(url)
    assert (answer.content, answer.headers["content-type"]) == (jpeg, "image/jpeg")
    assert browser.get("/picture/lab/none.jpg").status_code == 404
    # A browser that has the picture must not show it as that of a later console.
    bare_rig.close()
    restarted = ConsoleRig(tmp_path)
    restarted.show([verdict(1, preview=jpeg_scene(1))])
    page = restarted.browser().get("/").text
    assert url not in page
    assert f"/picture/{CAMERA}.jpg?{BOOT:x}-1" in page
    restarted.close()


def test_only_changed_parts_are_pushed(bare_rig: ConsoleRig) -> None:
    bare_rig.show([verdict(0)], "lab/a")
    bare_rig.show([verdict(0)], "lab/b")
    changes = Changes(bare_rig.context, Query())
    first = changes()
    assert 'id="grid"' in first
    assert 'id="counts"' in first
    assert changes() == ""
    bare_rig.show([verdict(1, class_name="yield")], "lab/b")
    pushed = changes()
    assert 'id="card-lab-2f-b"' in pushed
    assert "yield" in pushed
    assert "card-lab-2f-a" not in pushed
    assert 'id="grid"' not in pushed
    bare_rig.context.fleet.set_alerts({"lab/b": ["a1"]})
    bare_rig.tick()
    pushed = changes()
    assert 'id="grid"' in pushed
    assert 'class="pill bad"><a href="/alerts">1 alert</a>' in pushed


def test_cameras_are_selected_by_the_group_of_their_verdict(bare_rig: ConsoleRig) -> None:
    best = [Candidate(class_name=name, confidence=0.2) for name in ("cab", "minivan", "jeep")]
    windows = [Window(left=4, top=0, right=20, bottom=16, dependence=0.8)]
    bare_rig.show(
        [
            verdict(
                0, class_name="cab", class_group="vehicle", best=best, certified_patch=5, certified=True,
                windows=windows,
            )
        ],
        "lab/road",
    )  # fmt: skip
    bare_rig.show([verdict(0, class_name="unsure", best=best, certified_patch=7)], "lab/dark")
    browser = bare_rig.browser()
    found = browser.get("/?text=vehicle").text
    assert "lab/road" in found
    assert "lab/dark" not in found
    chosen = browser.get("/?group=vehicle").text
    assert "lab/road" in chosen
    assert "lab/dark" not in chosen
    assert bare_rig.context.fleet.view(Query()).groups == {"unsure": 1, "vehicle": 1}
    assert bare_rig.context.fleet.view(Query(group="unsure")).counts == {"online": 1}
    assert bare_rig.context.fleet.view(Query(group="unsure")).groups == {"unsure": 1, "vehicle": 1}
    empty = bare_rig.context.fleet.view(Query(group="unsure", state="offline"))
    assert (empty.counts, empty.groups) == ({"online": 1, "offline": 0}, {"unsure": 0})
    assert "lab/dark" in (unsure := browser.get("/?group=unsure").text)
    assert "lab/road" not in unsure
    assert browser.get("/api/v1/cameras?group=vehicle").json()["found"] == 1
    assert browser.get("/api/v1/cameras?group=animal").json()["found"] == 0
    page = browser.get("/camera/lab/road").text
    assert "Group: vehicle" in page
    assert [f"{each} <span>20 %" in page for each in ("minivan", "jeep", "cab")] == [
        True,
        True,
        False,
    ]  # the label itself is not repeated
    assert "Certified: no patch of 5×5 pixels changes the label of double masking, <strong>cab</strong>" in page
    assert '<rect x="4" y="0" width="16" height="16" fill-opacity="0.40"><title>80.0 %</title></rect>' in page
    dark = browser.get("/camera/lab/dark").text
    assert 'class="heat"' not in dark
    assert "It is unsure what it sees; most likely cab 20 %" in dark
    assert "a patch of 7×7 pixels may change the label. The verdict was <strong>unsure</strong>" in dark


def test_a_certified_frame_shows_its_class_also_if_its_verdict_reads_unsure(bare_rig: ConsoleRig) -> None:
    best = [Candidate(class_name=name, confidence=0.2) for name in ("cab", "minivan", "jeep")]
    bare_rig.show([verdict(0, class_name="unsure", best=best, certified_patch=5, certified=True)], "lab/road")
    page = bare_rig.browser().get("/camera/lab/road").text
    assert "changes the label of double masking, <strong>cab</strong>" in page


def test_two_thousand_cameras_are_paged(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path, page_cards=50)
    try:
        fleet = rig.context.fleet
        for number in range(2_000):
            fleet.record_status(status_row(f"lab/cam-{number}", OFFLINE), 0, monotonic_ms())
        rig.tick()
        text = rig.browser().get("/?page=2").text
        assert text.count('<li id="card-') == 50
        assert "page 2 of 40" in text
        assert names(rig, page=2)[0] == "lab/cam-50"
        assert names(rig, page=99_999)[-1] == "lab/cam-1999"
    finally:
        rig.close()


def test_an_offline_camera_can_be_deleted_until_it_sends_again(bare_rig: ConsoleRig, tmp_path: Path) -> None:
    bare_rig.show([verdict(0)])
    browser = bare_rig.browser()
    csrf = bare_rig.csrf()
    online = browser.post("/fleet/forget", data={"camera": CAMERA, "csrf": csrf})
    assert (online.status_code, online.json()["error"]) == (
        409,
        f"{CAMERA}: expected a camera that is gone, it is online",
    )
    bare_rig.tick(later_ms=60_000)
    assert browser.post("/fleet/forget", data={"camera": CAMERA, "csrf": csrf}).status_code == 303
    assert names(bare_rig) == []
    assert [(each.who, each.what, each.subject) for each in bare_rig.context.store.newest_operations()] == [
        (OWNER, "forget", CAMERA)
    ]
    bare_rig.close()
    restarted = ConsoleRig(tmp_path)
    try:
        old = status_row(CAMERA, OFFLINE)._replace(seen_ms=0)
        restarted.context.fleet.record_status(old, 0, monotonic_ms())
        restarted.tick()
        assert names(restarted) == []
        time.sleep(0.002)
        restarted.show([verdict(1)])
        assert names(restarted) == [CAMERA]
    finally:
        restarted.close()


def test_pages_have_a_strict_content_security_policy_and_comply_with_it(bare_rig: ConsoleRig) -> None:
    bare_rig.show([verdict(0, class_name="<script>alert(1)</script>")])
    browser = bare_rig.browser()
    answer = browser.get("/")
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "<script>alert" not in answer.text
    for forbidden in (" style=", "<style", " onclick", "hx-on", "javascript:", "js:"):
        assert forbidden not in answer.text
    for name in ("htmx.min.js", "hx-sse.min.js", "uplot.min.js", "uplot.min.css", "console.js", "console.css"):
        got = browser.get(f"/static/{name}")
        assert got.status_code == 200
        assert browser.get(f"/static/{name}", headers={"if-none-match": got.headers["etag"]}).status_code == 304
    assert browser.get("/static/../gate.py").status_code == 404


async def test_a_running_console_drops_a_camera_that_the_command_line_deletes(
    bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_rig.show([verdict(0)])
    monkeypatch.setattr("consumers.console.background.tasks._FORGOTTEN_S", 0.01)
    following = asyncio.create_task(follow_forgotten(bare_rig.context))
    try:
        time.sleep(0.002)
        other = Store(str(bare_rig.context.store.engine.url))
        other.forget(CAMERA)
        other.close()
        async with asyncio.timeout(60):
            while bare_rig.context.fleet.card(CAMERA) is not None:
                await asyncio.sleep(0.01)
                bare_rig.tick()
        bare_rig.show([verdict(1)])
        await asyncio.sleep(0.05)  # several polls: a camera that sends again stays
        assert names(bare_rig) == [CAMERA]
    finally:
        following.cancel()


async def test_a_camera_removed_by_a_clock_that_was_ahead_appears_when_it_sends_again(
    bare_rig: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.background.tasks._FORGOTTEN_S", 0.01)
    now_ms, day_ms = time.time_ns() // 10**6, 86_400_000
    bare_rig.context.store.forget(CAMERA)
    with bare_rig.context.store.engine.begin() as connection:
        connection.execute(update(forgotten).values(at_ms=now_ms + day_ms))
    bare_rig.context.fleet.forget(CAMERA, now_ms + day_ms)
    following = asyncio.create_task(follow_forgotten(bare_rig.context))
    try:
        async with asyncio.timeout(60):
            while not names(bare_rig):
                await asyncio.sleep(0.01)
                bare_rig.show([verdict(0)])
    finally:
        following.cancel()
    assert now_ms <= read_forgotten(str(bare_rig.context.store.engine.url))[CAMERA] < now_ms + day_ms


@pytest.mark.parametrize(
    ("model", "source", "is_labelled"),
    [
        ("cifar10@1+ab", "url", True),
        ("scene-sticker@1+ab", "video", True),
        ("scene@1+ab", "scene", False),
        ("imagenet@1+ab", "url", False),
    ],
)
def test_a_demonstration_network_is_labelled_on_a_real_camera(
    bare_rig: ConsoleRig, model: str, source: str, is_labelled: bool
) -> None:
    bare_rig.show([verdict(0, model_id=model, class_name="ship")])
    now_ms = time.time_ns() // 10**6
    meta = Meta(boot_id=1, source=source).SerializeToString()
    bare_rig.context.fleet.record_status(CameraRow(CAMERA, ONLINE, now_ms, "", b"", meta, now_ms), 0, monotonic_ms())
    bare_rig.tick()
    browser = bare_rig.browser()
    fleet, camera = browser.get("/").text, browser.get(f"/camera/{CAMERA}").text
    assert ("demo network<small>knows" in fleet) == is_labelled
    assert ('class="verdict">ship' in fleet) != is_labelled
    assert ("A demonstration network judges it, which knows" in camera) == is_labelled


@pytest.mark.parametrize(("own", "sent"), [(3_110, 4_020), (0, 0)])
def test_the_page_of_a_camera_compares_its_own_stream_with_what_it_publishes(
    bare_rig: ConsoleRig, own: int, sent: int
) -> None:
    bare_rig.show([verdict(0)])
    now_ms = time.time_ns() // 10**6
    meta = Meta(boot_id=1, stream_frame_bytes=own, sent_frame_bytes=sent).SerializeToString()
    bare_rig.context.fleet.record_status(CameraRow(CAMERA, ONLINE, now_ms, "", b"", meta, now_ms), 0, monotonic_ms())
    bare_rig.tick()
    page = bare_rig.browser().get(f"/camera/{CAMERA}").text
    rows = ("Published frame</dt><dd>4.02 kB", "Own stream's frame</dt><dd>3.11 kB")
    assert [row in page for row in rows] == [own > 0, own > 0]
    assert ("Own stream" in page) == (own > 0)


@pytest.mark.parametrize(
    ("rate", "words", "placeholder"),
    [
        (1_000, "1,000/s", "1000"),
        (12.5, "12.5/s", "12.5"),
        (1 / 60, "1/min", "0.01667"),
    ],
)
def test_the_page_of_a_camera_shows_its_frame_rate_setting_in_digits(
    bare_rig: ConsoleRig, rate: float, words: str, placeholder: str
) -> None:
    bare_rig.show([verdict(0)])
    now_ms = time.time_ns() // 10**6
    meta = Meta(boot_id=1, frames_per_second=rate).SerializeToString()
    bare_rig.context.fleet.record_status(CameraRow(CAMERA, ONLINE, now_ms, "", b"", meta, now_ms), 0, monotonic_ms())
    bare_rig.context.commands = Commands(MqttAccess("127.0.0.1", 1), CONSOLE_KEYS, bare_rig.context.store.engine)
    page = bare_rig.browser().get(f"/camera/{CAMERA}").text
    assert f"<dd>{words}</dd>" in page
    assert f'step="any" placeholder="{placeholder}"' in page


def test_a_command_waits_only_for_commands_to_the_same_camera(bare_rig: ConsoleRig) -> None:
    commands = Commands(MqttAccess("127.0.0.1", 1), CONSOLE_KEYS, bare_rig.context.store.engine)
    with commands._lock_of("lab/0"):
        assert not commands._lock_of("lab/0").acquire(blocking=False)
        assert all(commands._lock_of(f"lab/{number}").acquire(blocking=False) for number in range(1, 200))
    assert commands._lock_of("lab/0").acquire(blocking=False)
    assert not commands._locks


def test_a_command_that_is_not_due_is_not_sent(bare_rig: ConsoleRig) -> None:
    commands = Commands(MqttAccess("127.0.0.1", 1), CONSOLE_KEYS, bare_rig.context.store.engine)
    assert commands.send("lab/0", {"enabled": False}, is_due=lambda: False) == SUPERSEDED
    assert commands.reset("lab/0", is_due=lambda: False) == SUPERSEDED


def test_every_shipped_network_is_a_demonstration_network() -> None:
    shipped = {read_settings(each.parent).name for each in shipped_bundle("scene").parent.glob("*/model.toml")}
    assert shipped == set(DEMONSTRATIONS)
    assert REAL_SOURCES == REAL_KINDS
