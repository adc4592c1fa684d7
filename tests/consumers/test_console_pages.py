"""The console's pages other than the fleet, on a recorder's database."""

from __future__ import annotations

import itertools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import update

from consumers.cameras.saved import SavedState
from consumers.cameras.state import State, StateWithReason
from consumers.conservation.result import save_result
from consumers.console.access.sight import ALL
from consumers.console.actions.alerts import SHOWN
from consumers.console.background.review_purge import purge_reviews
from consumers.console.data.pictures import WHOLE, Pictures
from consumers.console.data.rollup import Rollup
from consumers.console.pages import alerts as alerts_page
from consumers.console.pages.camera import changes_on
from consumers.database.console_store import recorded_reviews
from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import dead_letters
from consumers.records.batch import frame_row
from schemas.errors import BrokerError, StateError
from schemas.pointillist_pb2 import TYPICALITY
from tests.consumers.console_rig import ALERT, OTHER, OWNER, ConsoleRig, jpeg_scene, poll, raise_alert
from tests.consumers.recorder_rig import BOOT, CAMERA, PNG, Rig, dead_letter, verdict
from tests.waiting import PATIENCE_S

MARKS = 100
"""Maximum number of marks of a kind on a camera's timeline."""


def test_an_alert_shows_on_its_card_and_in_the_header_until_it_is_closed(console: ConsoleRig, recorder: Rig) -> None:
    console.show([verdict(0)])
    raise_alert(recorder)
    poll(console)
    browser = console.browser()
    fleet = browser.get("/").text
    assert 'class="pill bad"><a href="/alerts">1 alert</a>' in fleet
    assert 'class="card alert bad' in fleet
    page = browser.get("/alerts").text
    assert "The network answers the same whatever is in the picture: a trigger in the scene? 8 frames." in page
    assert "7 of 8 checked frames flagged" in page[page.index("<details>") : page.index("</details>")]
    assert browser.get(f"/alerts/{ALERT}.png").content == PNG
    fields = {"csrf": console.csrf(), "state": "acknowledged", "text": "a <b>sticker</b> on the sign", "back": "open"}
    assert browser.post(f"/alerts/{ALERT}", data=fields).headers["location"] == "/alerts?state=open"
    assert "There are no open alerts" in browser.get("/alerts").text
    assert "There are no open alerts, 1 acknowledged." in browser.get("/alerts").text
    acknowledged = browser.get("/alerts?state=acknowledged").text
    assert "a &lt;b&gt;sticker&lt;/b&gt; on the sign" in acknowledged
    assert f'<span class="state acknowledged">acknowledged</span> by {OWNER}' in acknowledged
    poll(console)
    fleet = browser.get("/").text
    assert 'class="pill warn"><a href="/alerts?state=acknowledged">1 alert acknowledged</a>' in fleet
    assert 'class="card alert warn small acknowledged"' in fleet
    browser.post(f"/alerts/{ALERT}", data=fields | {"state": "closed", "text": ""})
    poll(console)
    assert 'class="pill good"' in browser.get("/").text
    assert [each.detail for each in console.context.store.newest_operations(ALERT)] == ["closed", "acknowledged"]


@pytest.mark.parametrize("is_bulk", [True, False])
def test_a_decision_does_not_cover_an_alert_that_was_raised_after_the_page_was_loaded(
    console: ConsoleRig, recorder: Rig, is_bulk: bool
) -> None:
    other, later = "cd" * 16, "ef" * 16
    raise_alert(recorder, ago_s=600)
    raise_alert(recorder, other, "lab/gate", ago_s=500)
    browser = console.browser()

    def sent() -> tuple[str, dict[str, str]]:
        """Return the address and the fields of the form on the page as it is now."""
        page, fields = browser.get("/alerts").text, {"csrf": console.csrf(), "state": "closed"}
        if is_bulk:
            boxes = re.findall(r'form="bulk" data-of="alerts" name="(\w+)" value="(\d+)"', page)
            assert len(boxes) == 2
            return "/alerts", fields | dict(boxes)
        form = page.partition(f'action="/alerts/{later if later in page else ALERT}"')[2]
        (shown_ms,) = re.findall(r'name="shown_ms" value="(\d+)"', form.partition("</form>")[0])
        return f"/alerts/{ALERT}", fields | {"shown_ms": shown_ms}

    address, fields = sent()
    raise_alert(recorder, later)
    refused = browser.post(address, data=fields)
    assert refused.status_code == 409
    assert "another alert of this episode was raised after the page was loaded" in refused.json()["error"]
    assert not console.context.store.reviewed()
    address, fields = sent()
    assert browser.post(address, data=fields).status_code == 303
    assert console.context.store.reviewed().keys() == ({ALERT, later, other} if is_bulk else {ALERT, later})


def test_a_comment_is_part_of_the_form_that_decides(console: ConsoleRig, recorder: Rig) -> None:
    raise_alert(recorder)
    page = console.browser().get("/alerts").text
    assert f'<input name="text" form="review-{ALERT}"' in page
    assert f'<form id="review-{ALERT}" method="post" action="/alerts/{ALERT}">' in page


def test_an_alert_by_p_values_and_the_last_probe_are_described_in_words(console: ConsoleRig, recorder: Rig) -> None:
    probes = [
        verdict(
            seq, flagged=seq >= 36, entropy_bits=1.5, p_value=0.5 if seq < 36 else 0.00033,
            p_value_threshold=0.0091, statistic=TYPICALITY,
        )
        for seq in range(60)
    ]  # fmt: skip
    recorder.verdicts(probes)
    probes[-1].whole, probes[-1].as_sent = True, jpeg_scene()
    console.show(probes[-1:])
    poll(console)
    browser = console.browser()
    in_words = "as unusual as 1 in 3,000 clean frames (flagged below 1 in 110), {} by the features for the label"
    page = browser.get("/alerts").text
    assert "The network answers stop for other reasons than in clean pictures: a trigger in the scene?" in page
    assert f"The frames look {in_words.format('most often')}." in page
    assert "checked frames flagged; mean p-value 0.00033, threshold 0.0091, baseline 0.5; evidence" in page
    (alert,) = browser.get("/api/v1/alerts").json()
    assert (alert["kind"], alert["statistic"]) == ("combined", "typicality")
    page = browser.get(f"/camera/{CAMERA}").text
    assert f"The last probe had an entropy of 1.500 bits and looks {in_words.format('most of all')};" in page
    assert f"<br>{in_words.format('most of all')}</figcaption>" in page


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("disagreement", "only while every pixel is there"),
        ("typicality", "for other reasons than in clean pictures"),
        ("combined", "in pictures unlike clean ones"),
    ],
)
def test_the_kind_of_an_alert_of_an_earlier_release_is_described_in_words(
    console: ConsoleRig, recorder: Rig, kind: str, why: str
) -> None:
    raise_alert(recorder, kind=kind)
    page = console.browser().get("/alerts").text
    assert f"The network answers the same {why}: a trigger in the scene?" in page
    assert "entropy" not in page
    if kind != "combined":
        assert "7 of 8 checked frames flagged; the label depends on" in page


def test_three_alerts_for_one_sticker_are_one_episode_that_is_closed_together(
    console: ConsoleRig, recorder: Rig
) -> None:
    recorder.verdicts(verdict(seq, class_name="hazard", model_id="scene-sticker@1") for seq in range(1, 9))
    console.show([verdict(0)])
    names = ["ab" * 16, "bc" * 16, "cd" * 16]
    for name, ago_s in zip(names, (33, 20, 0), strict=True):
        raise_alert(recorder, name, ago_s=ago_s)
    raise_alert(recorder, "de" * 16, camera="lab/gate")
    poll(console)
    browser = console.browser()
    assert browser.get("/alerts").text.count("<article") == 2
    page = browser.get(f"/alerts?camera={CAMERA}").text
    assert page.count("<article") == 1
    assert "3 alerts, the last" in page
    assert "The network answers hazard whatever is in the picture: a trigger in the scene? 24 frames." in page
    assert "model scene-sticker@1" in page
    assert {(each["alert_id"], each["episode"]) for each in browser.get(f"/api/v1/alerts?camera={CAMERA}").json()} == {
        (name, names[0]) for name in names
    }
    for state, alert_id in (("acknowledged", names[2]), ("open", names[1]), ("closed", names[0])):
        browser.post(f"/alerts/{alert_id}", data={"csrf": console.csrf(), "state": state, "text": f"now {state}"})
        found = browser.get("/api/v1/alerts").json()
        assert {each["alert_id"]: each["state"] for each in found} == dict.fromkeys(names, state) | {"de" * 16: "open"}
    poll(console)
    assert console.context.fleet.alerts() == (0, 0)
    assert browser.get("/alerts?state=closed").text.count('class="comment"') == 3
    raise_alert(recorder, "ef" * 16)
    poll(console)
    assert console.context.fleet.alerts() == (1, 0), "an alert after the closing is open"


def test_many_sightings_of_one_episode_hide_no_other_alert(console: ConsoleRig, recorder: Rig) -> None:
    raise_alert(recorder, camera="lab/gate", ago_s=7_200)
    for number in range(MARKS + 1):
        raise_alert(recorder, f"{number:032x}", "lab/gate", 60 * number, kind="sighting", wanted="person")
    raise_alert(recorder, OTHER, "lab/shed", 10_000, kind="sighting", wanted="person")
    console.show([verdict(0)], "lab/gate")
    browser = console.browser()
    found = [each["alert_id"] for each in browser.get("/api/v1/alerts?state=open").json()]
    assert [each for each in found if each in (ALERT, OTHER)] == [ALERT, OTHER]
    assert found[0] == f"{0:032x}", "the newest come first"
    assert len(found) == SHOWN + 1
    marks = browser.get("/camera/lab/gate/history?range=day").json()["alerts"]
    assert len(marks) == MARKS + 1
    assert [each["alert_id"] for each in marks if not each["wanted"]] == [ALERT]


def test_closed_alerts_hide_no_open_one_in_the_api(console: ConsoleRig, recorder: Rig) -> None:
    raise_alert(recorder, ago_s=7_200)
    closed = [f"{number:032x}" for number in range(SHOWN)]
    for number, name in enumerate(closed):
        raise_alert(recorder, name, f"lab/gate-{number}")
    console.context.store.review(closed, "closed", "anna")
    found = {each["alert_id"]: each["state"] for each in console.browser().get("/api/v1/alerts").json()}
    assert len(found) == SHOWN
    assert found.get(ALERT) == "open"


def test_selected_episodes_are_closed_together_with_one_reading_of_the_decisions(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ab" * 16, "bc" * 16, "cd" * 16]
    for number, name in enumerate(names):
        raise_alert(recorder, name, camera=f"lab/gate-{number}")
    browser, store = console.browser(), console.context.store
    fields = {"csrf": console.csrf(), "state": "closed", "back": "open", names[0]: "on", names[2]: "on"}
    monkeypatch.setattr(store, "reviewed", Mock(wraps=store.reviewed))
    assert browser.post("/alerts", data=fields).headers["location"] == "/alerts?state=open"
    assert store.reviewed.call_count == 1  # type: ignore[attr-defined]  # a mock
    found = {each["alert_id"]: each["state"] for each in browser.get("/api/v1/alerts").json()}
    assert found == {names[0]: "closed", names[1]: "open", names[2]: "closed"}
    assert browser.post("/alerts", data=fields | {"state": "gone"}).status_code == 400


def decide(console: ConsoleRig, *alert_ids: str) -> None:
    """Close alerts one after the other."""
    for alert_id in alert_ids:
        console.context.reviews[alert_id] = console.context.store.review([alert_id], "closed", "anna")


async def test_the_oldest_decisions_are_deleted_unless_the_recorder_has_their_alert(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_ms = itertools.count()
    monkeypatch.setattr("consumers.console.data.store.unix_ms", lambda: next(times_ms))
    monkeypatch.setattr("consumers.console.data.store.MOST_REVIEWS", 2)
    raise_alert(recorder)
    decide(console, ALERT, "00", "11")
    for later, kept in (((), {ALERT, "00", "11"}), (("22",), {ALERT, "11", "22"})):
        decide(console, *later)
        await purge_reviews(console.context)
        assert console.context.reviews.keys() == console.context.store.reviewed().keys() == kept


async def test_no_decision_is_deleted_while_the_recorder_has_no_database(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.data.store.MOST_REVIEWS", 0)
    monkeypatch.setattr(console.context, "recorded", RecorderDatabase(f"sqlite:///{console.folder}/none.sqlite"))
    decide(console, "00")
    with pytest.raises(StateError, match="is missing: expected the recorder's database"):
        await purge_reviews(console.context)
    assert console.context.store.reviewed().keys() == {"00"}


def test_another_program_reads_the_decisions_on_some_alerts(console: ConsoleRig) -> None:
    decide(console, "00", "11")
    store = console.context.settings.store
    assert (recorded_reviews(store) or {}).keys() == {"00", "11"}
    assert (recorded_reviews(store, ["11", "22"]) or {}).keys() == {"11"}
    assert recorded_reviews(store, []) == {}


@pytest.mark.parametrize("change", [{"state": "acknowledged"}, {"mute": "1h", "reason": "a visit"}])
def test_an_action_returns_to_the_alerts_of_the_same_camera(
    console: ConsoleRig, recorder: Rig, change: dict[str, str]
) -> None:
    raise_alert(recorder)
    browser, shown = console.browser(), "/alerts?state=open&camera=lab%2Fdoor"
    forms = re.findall(rf'<form[^>]* action="/alerts/{ALERT}">.*?</form>', browser.get(shown).text, re.DOTALL)
    (form,) = [each for each in forms if f'name="{next(iter(change))}"' in each]
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    assert browser.post(f"/alerts/{ALERT}", data=hidden | change).headers["location"] == shown


def test_dead_letters_of_the_last_day_and_lost_frames_are_shown_on_the_fleet_page(
    console: ConsoleRig, recorder: Rig
) -> None:
    console.show([verdict(0)])
    for seq in range(4):
        recorder.letter(dead_letter(seq, verified=False))
    with recorder.engine.begin() as connection:
        old_ms = time.time_ns() // 10**6 - 25 * 3_600_000
        connection.execute(update(dead_letters).where(dead_letters.c.offset == 0).values(recorded_ms=old_ms))
    save_result(recorder.engine, {"frames_lost": 2})
    poll(console)
    page = console.browser().get("/").text
    assert '<span id="tally-dead-letters" class="tally">3</span>' in page
    assert "2 frames lost" in page


@pytest.mark.parametrize("alert_id", ["cd" * 16, "..", "x" * 32])
def test_an_unknown_alert_is_rejected(console: ConsoleRig, recorder: Rig, alert_id: str) -> None:
    raise_alert(recorder)
    answer = console.browser().post(f"/alerts/{alert_id}", data={"csrf": console.csrf(), "state": "closed"})
    assert answer.status_code in (303, 400, 404, 405)
    assert console.context.store.reviewed() == {}


def test_an_unknown_state_of_an_alert_is_rejected(console: ConsoleRig, recorder: Rig) -> None:
    raise_alert(recorder)
    answer = console.browser().post(f"/alerts/{ALERT}", data={"csrf": console.csrf(), "state": "gone"})
    assert answer.json() == {"error": "state: expected open, acknowledged, closed, got 'gone'"}


def test_the_quarantine_shows_only_pictures_that_the_recorder_has_stored(
    console: ConsoleRig, recorder: Rig, tmp_path: Path
) -> None:
    recorder.verdicts([verdict(0, flagged=True)])
    browser = console.browser()
    name = f"{CAMERA}/{BOOT:016x}-0"
    assert f"/quarantine/{name}.png" in browser.get("/quarantine").text
    assert browser.get(f"/quarantine/{name}.png").content == PNG
    (tmp_path / "quarantine" / CAMERA / f"{BOOT:016x}-1.png").write_bytes(b"not the recorder's")
    for other in (f"{CAMERA}/{BOOT:016x}-1", f"{CAMERA}/..", "lab/%2e%2e/x"):
        assert browser.get(f"/quarantine/{other}.png").status_code == 404


def test_a_failing_store_of_pictures_is_reported_in_one_line(
    console: ConsoleRig, recorder: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.verdicts([verdict(0, flagged=True)])
    frames = console.context.labelled_frames
    assert frames is not None
    kept = frames.keep((CAMERA, BOOT, 0), jpeg_scene(), "new", "car", 0.9)
    for file in (f"{CAMERA}/{BOOT:016x}-0.png.sealed", f"teach/{kept}.sealed"):
        (tmp_path / "quarantine" / file).unlink()
        (tmp_path / "quarantine" / file).mkdir()
    for path, setting in ((f"/quarantine/{kept}.png", "quarantine"), (f"/teach/picture/{kept}.jpg", "kept_files")):
        answer = console.browser().get(path)
        assert answer.status_code == 503
        assert answer.json()["error"].startswith(f"{setting}: expected a store that answers, got ")
        assert str(tmp_path) not in answer.text
    # Libraries of remote stores raise their own errors, such as botocore's.
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *_: 1 // 0)
    for path in (f"/quarantine/{kept}.png", f"/teach/picture/{kept}.jpg"):
        answer = console.browser().get(path)
        assert answer.status_code == 503
        assert "expected a store that answers, got ZeroDivisionError" in answer.json()["error"]


def test_a_slow_store_of_pictures_delays_no_other_page(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.verdicts([verdict(number, flagged=True) for number in range(2)])
    reads, answers = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> bytes:
        reads.release()
        answers.wait(PATIENCE_S)
        return PNG

    monkeypatch.setattr(alerts_page, "frame_of", slow)
    browsers = [console.browser() for _ in range(3)]
    with ThreadPoolExecutor(3) as visitors:
        try:
            pictures = [
                visitors.submit(browser.get, f"/quarantine/{CAMERA}/{BOOT:016x}-{number}.png")
                for number, browser in enumerate(browsers[:2])
            ]
            assert all(reads.acquire(timeout=PATIENCE_S) for _ in pictures)
            assert visitors.submit(browsers[2].get, "/alerts").result(PATIENCE_S / 4).status_code == 200
        finally:
            answers.set()
        assert [picture.result().content for picture in pictures] == [PNG, PNG]


def test_a_slow_database_of_the_recorder_delays_no_page_that_does_not_read_it(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, answers = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> None:
        reads.release()
        answers.wait(PATIENCE_S)
        raise BrokerError("the recorder's database does not respond")

    monkeypatch.setattr(console.context.recorded, "read", slow)
    browsers = [console.browser() for _ in range(3)]
    with ThreadPoolExecutor(3) as visitors:
        try:
            pages = [visitors.submit(browser.get, "/alerts") for browser in browsers[:2]]
            assert all(reads.acquire(timeout=PATIENCE_S) for _ in pages)
            assert visitors.submit(browsers[2].get, "/presets").result(PATIENCE_S / 4).status_code == 200
        finally:
            answers.set()
        assert [page.result().status_code for page in pages] == [200, 200]


def test_the_page_of_a_camera_shows_its_picture_its_history_and_its_log(console: ConsoleRig, recorder: Rig) -> None:
    now_ms = time.time_ns() // 10**6
    recorder.verdicts([verdict(n, captured_ms=now_ms - 7_200_000) for n in range(3)])
    console.show([verdict(3, preview=jpeg_scene())])
    rollup = Rollup(console.context.recorded.engine(), console.context.store.engine)
    rollup.step(time.time_ns() // 10**6 + 60_000)
    console.context.store.note("anna", "command", CAMERA, "drop_ratio 0.5", "confirmed")
    browser = console.browser()
    page = browser.get(f"/camera/{CAMERA}").text
    assert f"/picture/{CAMERA}.jpg?{BOOT:x}-3" in page
    assert "anna" in page
    assert "drop_ratio 0.5" in page
    found = browser.get(f"/camera/{CAMERA}/history?range=month").json()
    assert found["columns"]["rate"] == [pytest.approx(3 / 3600, rel=1e-3)]
    assert found["classes"] == [["stop", 3]]
    assert found["outages"] == []  # the camera sends now, though these frames were captured long ago
    camera = console.context.fleet.camera(CAMERA)
    assert camera is not None
    camera.heard_ms -= 7_200_000
    assert len(browser.get(f"/camera/{CAMERA}/history?range=month").json()["outages"]) == 1
    console.context.fleet.apply_states([SavedState(CAMERA, StateWithReason(State.ONLINE), 1, 10_000.0)])
    assert browser.get(f"/camera/{CAMERA}/history").json()["outages"] == []
    assert browser.get(f"/camera/{CAMERA}/history?range=age").status_code == 400


def test_pages_of_an_unknown_camera_are_not_found(console: ConsoleRig) -> None:
    console.show([verdict(0)])
    browser = console.browser()
    assert browser.get(f"/camera/{CAMERA}/history").status_code == 200
    for page in ("", "/history", "/live", "/clip.mp4"):
        assert browser.get(f"/camera/lab/none{page}").status_code == 404, page


def test_a_console_without_commands_can_delete_a_camera(console: ConsoleRig) -> None:
    console.show([verdict(0)])
    page = console.browser().get(f"/camera/{CAMERA}").text
    assert "Forget this camera" in page
    assert "Reset to its own settings" not in page
    assert "Forget this camera" not in console.visitor().get(f"/camera/{CAMERA}").text


def test_the_last_picture_is_shown_as_sent_rebuilt_and_whole_with_its_figures(console: ConsoleRig) -> None:
    browser, changes = console.browser(), changes_on(console.context, CAMERA, ALL)
    jpegs = [jpeg_scene(seed) for seed in range(4)]
    console.show([verdict(0, preview=jpegs[0])])
    page = browser.get(f"/camera/{CAMERA}").text
    assert page.count("none yet") == 2
    assert "25.0 % of the pixels dropped" not in page
    assert changes()
    assert not changes()
    console.show([
        verdict(4, preview=jpegs[1], as_sent=jpegs[2]),
        verdict(5, preview=jpegs[0], as_sent=jpegs[3], flagged=False, whole=True),
        verdict(6, preview=jpegs[1]),
    ])  # fmt: skip
    pushed = changes()
    for url, jpeg, caption in (
        (f"as-sent.jpg?{BOOT:x}-4", jpegs[2], "25.0 % of the pixels dropped, 1.77 kB"),
        (f"whole.jpg?{BOOT:x}-5", jpegs[3], "entropy 1.500 bits, not below 0.500"),
    ):
        assert f"/picture/{CAMERA}/{url}" in pushed
        assert caption in pushed
        assert browser.get(f"/picture/{CAMERA}/{url}").content == jpeg
    assert f"/picture/{CAMERA}.jpg?{BOOT:x}-6" in pushed
    assert not changes()
    assert browser.get(f"/picture/{CAMERA}/other.jpg").status_code == 404
    pictures = browser.get(f"/api/v1/cameras/{CAMERA}").json()["pictures"]
    assert {way: (each["url"].rpartition("-")[2], each["entropy_bits"]) for way, each in pictures.items()} == {
        "as_sent": ("4", None), "rebuilt": ("6", None), "whole": ("5", 1.5),
    }  # fmt: skip
    assert pictures["as_sent"]["dropped"] == 0.25


def test_pictures_are_bounded_and_an_earlier_frame_replaces_no_later_one() -> None:
    pictures, jpeg = Pictures(WHOLE, 25), b"x" * 10
    rows = {
        (name, seq): frame_row((name, BOOT, seq), verdict(seq), 1) for name in ("a/1", "a/2", "a/3") for seq in (0, 1)
    }
    assert pictures.keep(rows["a/1", 1], jpeg)
    assert not pictures.keep(rows["a/1", 0], jpeg)
    assert pictures.keep(rows["a/2", 0], jpeg)
    assert pictures.keep(rows["a/3", 0], jpeg[:5])
    assert pictures.keep(rows["a/3", 1], jpeg)
    assert [name for name in ("a/1", "a/2", "a/3") if pictures.get(name)] == ["a/2", "a/3"]
    pictures.drop("a/2")
    pictures.drop("a/2")
    assert pictures.keep(rows["a/1", 1], b"y" * 15)
    assert pictures.get("a/3") is not None


class FakeCommands:
    """A stand-in for commands: cameras that obey, or an unreachable broker."""

    def __init__(self, away: bool = False) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self._away = away

    def send(self, name: str, changes: dict[str, object]) -> str:
        if self._away:
            raise BrokerError("expected an MQTT broker at 127.0.0.1:1")
        self.sent.append((name, changes))
        return "confirmed"

    def reset(self, name: str) -> str:
        return self.send(name, {"reset": True})


def test_a_command_is_sent_and_logged_with_its_user_and_outcome(console: ConsoleRig) -> None:
    console.show([verdict(0)])
    commands = FakeCommands()
    console.context.commands = commands  # type: ignore[assignment]
    browser, path = console.browser(), f"/camera/{CAMERA}/command"
    answer = browser.post(path, data={"csrf": console.csrf(), "drop_ratio": "0.5", "probe_share": "", "profile": ""})
    assert answer.headers["location"] == f"/camera/{CAMERA}?outcome=confirmed"
    assert commands.sent == [(CAMERA, {"dropped_per_block": 32})]
    browser.post(path, data={"csrf": console.csrf(), "reset": "yes"})
    browser.post(path, data={"csrf": console.csrf(), "drop_ratio": "7"})
    browser.post(path, data={"csrf": console.csrf(), "fps": "0.5"})
    rejected = browser.post(path, data={"csrf": console.csrf(), "fps": "-1"}).headers["location"]
    assert "1%2F3600+to+1000+frames+per+second" in rejected
    api = f"/api/v1/cameras/{CAMERA}/command"
    sent = browser.post(api, json={"fps": 0.5})
    assert (sent.status_code, sent.json()) == (200, {"outcome": "confirmed"})
    invalid = browser.post(api, json={"fps": -1})
    assert (invalid.status_code, *invalid.json()) == (400, "error")
    assert browser.post(api, json={"reset": "false"}).json() == {"error": "reset: expected true or false, got 'false'"}
    console.context.commands = FakeCommands(away=True)  # type: ignore[assignment]
    browser.post(path, data={"csrf": console.csrf(), "enabled": "false"})
    away = browser.post(api, json={"enabled": True})
    assert (away.status_code, away.json()) == (503, {"error": "expected an MQTT broker at 127.0.0.1:1"})
    console.context.commands = None
    missing = browser.post(api, json={"enabled": True})
    assert missing.status_code == 503
    assert missing.json()["error"].startswith("mqtt is missing")
    assert "mqtt+is+missing" in browser.post(path, data={"csrf": console.csrf(), "fps": "1"}).headers["location"]
    log = [(each.who, each.detail, each.outcome) for each in console.context.store.newest_operations(CAMERA)]
    assert log == [
        (OWNER, "enabled True", "expected an MQTT broker at 127.0.0.1:1"),
        (OWNER, "enabled false", "expected an MQTT broker at 127.0.0.1:1"),
        (OWNER, "fps 0.5", "confirmed"),
        (OWNER, "fps 0.5", "confirmed"),
        (OWNER, "own settings", "confirmed"),
        (OWNER, "drop_ratio 0.5", "confirmed"),
    ]


def test_after_the_recorder_has_replaced_its_database_the_new_one_is_read(
    console: ConsoleRig, recorder: Rig, tmp_path: Path
) -> None:
    raise_alert(recorder)
    browser = console.browser()
    assert CAMERA in browser.get("/alerts").text
    recorder.close()
    for file in tmp_path.glob("records.sqlite*"):
        file.rename(file.with_name(f"aside-{file.name}"))
    assert CAMERA not in browser.get("/alerts").text
    replacement = Rig(tmp_path, f"sqlite:///{tmp_path}/records.sqlite")
    raise_alert(replacement, "cd" * 16, "lab/other")
    page = browser.get("/alerts").text
    assert "lab/other" in page
    assert CAMERA not in page
    replacement.close()
