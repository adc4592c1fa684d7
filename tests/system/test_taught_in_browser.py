"""Teaching in Chromium: a user labels frames of a sample video, trains a classifier on them and opens its report."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from benchmarks.harness.browser import CHROMIUM, chromium
from benchmarks.harness.teach_page import first_frame, frames_of, label_first, press_on_first
from consumers.console.data.collector import QUIET_MS, Collector
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.pictures import CameraPicture
from consumers.console.data.store import Store
from consumers.console.settings import JobSettings
from infra.local.process import COMMAND, Child
from infra.release.assets import make
from processors.bundle import read_settings
from tests.consumers.console_rig import CONSOLE_KEYS, ROW
from tests.consumers.served_console import serving
from tests.system.test_console import Visit
from tests.waiting import PATIENCE_S

VIDEO = Path(os.environ.get("POINTILLIST_DATA", ""), "video", "intel_one-by-one-person-detection.mp4")
NOBODY = range(0, 50, 9)
PERSON = range(80, 220, 28)
"""Frames of both classes. A class needs five labels, even while one is undone. STRIP needs more: see `test_teach`."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="expected chromium: infra/bootstrap.sh test installs it"),
    pytest.mark.skipif(not VIDEO.is_file(), reason="expected the sample videos in POINTILLIST_DATA"),
]


def launch(arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> Child:
    """Start a job like the console, but at the priority of the test."""
    return Child([*COMMAND, *arguments], log, env={**os.environ, **variables})


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run a console with real jobs in a thread, and yield its address."""
    ports: queue.Queue[int] = queue.Queue()
    done = threading.Event()

    async def serve() -> None:
        async with serving(folder, launch, jobs=JobSettings(folder=folder / "jobs")) as (port, _):
            ports.put(port)
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=PATIENCE_S)}"
    finally:
        done.set()
        thread.join(PATIENCE_S)


def collect(folder: Path) -> None:
    """Pass frames of the video to the collector, like a camera's pictures."""
    store = Store(f"sqlite:///{folder}/console.sqlite")
    store.prepare()
    collector = Collector(LabelledFrames(store.engine, str(folder / "quarantine"), CONSOLE_KEYS.previews))
    with av.open(str(VIDEO)) as video:
        for seq, frame in enumerate(video.decode(video=0)):
            if seq in NOBODY or seq in PERSON:
                jpeg = io.BytesIO()
                small = frame.reformat(width=240, height=136, format="rgb24").to_ndarray()
                Image.fromarray(np.asarray(small)).save(jpeg, "JPEG")
                row = ROW._replace(seq=seq, recorded_ms=(seq + 1) * QUIET_MS, class_name="unsure", confidence=0.2)
                assert collector.judge(CameraPicture("", row, jpeg.getvalue())) == "unsure"
            if seq > PERSON.stop:
                break
    store.close()


def test_frames_labelled_by_keys_train_a_classifier(tmp_path: Path) -> None:
    collect(tmp_path)
    make(to_test=True)
    with served(tmp_path) as url, chromium(PATIENCE_S) as browser:
        visit = Visit(browser, url)
        visit.open_link(tmp_path / "owner.token")
        page = visit.open("/teach")
        frames = frames_of(page)
        expect(frames).to_have_count(len(NOBODY) + len(PERSON))
        classes = page.locator(".classes li")
        while frames.count():
            label = "nobody" if first_frame(page) in NOBODY else "person"
            label_first(page, label)
        page.locator("body").press("u")
        expect(frames).to_have_count(1)
        expect(frames.first.locator("strong")).to_have_text(f"{label}?")
        visit.check_page("teach")
        press_on_first(page, "Enter")
        expect(frames).to_have_count(0)
        expect(classes.first).to_contain_text(f"nobody {len(NOBODY)}")
        expect(classes.last).to_contain_text(f"person {len(PERSON)}")
        _change_stored_labels(visit, len(NOBODY) + len(PERSON))
        _leave_while_a_label_is_sent(visit)
        page.get_by_label("Name").fill("corridor")
        page.get_by_role("button", name="Train").click()
        page.wait_for_url("**/jobs/*")
        expect(page.locator("#job .state")).to_have_text("done", timeout=400_000)
        expect(page.locator("#job")).to_contain_text("labels are right when held out")
        expect(page.locator("#job table").first).to_contain_text("nobody")
        visit.check_page("teach-report")
        assert visit.errors == []
    (bundle,) = (tmp_path / "jobs" / "runs").glob("*/out")
    assert read_settings(bundle).classes == ["nobody", "person"]


def _change_stored_labels(visit: Visit, count: int) -> None:
    """Change, remove and restore stored labels after a reload, and undo the last change."""
    page = visit.open("/teach")
    page.get_by_role("link", name="labelled").click()
    frames, classes = page.locator("#frames figure:visible"), page.locator(".classes li")
    expect(frames).to_have_count(count)
    label = frames.first.locator("strong")
    expect(label).to_have_text("nobody")  # the first figure was labelled last
    press_on_first(page, "2")
    expect(label).to_have_text("person")
    expect(classes.last).to_contain_text(f"person {len(PERSON) + 1}")
    page.locator("body").press("u")
    expect(label).to_have_text("nobody")
    expect(classes.last).to_contain_text(f"person {len(PERSON)}")
    press_on_first(page, "0")
    expect(frames).to_have_count(count - 1)
    expect(classes.first).to_contain_text(f"nobody {len(NOBODY) - 1}")
    page.locator("body").press("u")
    expect(frames).to_have_count(count)
    expect(classes.first).to_contain_text(f"nobody {len(NOBODY)}")
    visit.open("/teach")
    expect(frames).to_have_count(0)
    page.locator("body").press("u")
    expect(frames).to_have_count(1)
    press_on_first(page, "1")
    expect(classes.first).to_contain_text(f"nobody {len(NOBODY)}")


def _leave_while_a_label_is_sent(visit: Visit) -> None:
    """Check that the browser asks before the page is left only while a label is being sent."""
    page = visit.open("/teach?show=labelled")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.type))
    sent: list[Route] = []
    page.route("**/teach/label", lambda route: sent.append(route))
    with page.expect_request("**/teach/label"):
        press_on_first(page, "2")
    visit.open("/teach?show=labelled")
    assert dialogs == ["beforeunload"]
    for each in sent:
        each.abort()
    page.unroute("**/teach/label")
    press_on_first(page, "2")
    expect(page.locator(".classes li").last).to_contain_text(f"person {len(PERSON) + 1}")
    page.locator("body").press("u")
    expect(page.locator(".classes li").last).to_contain_text(f"person {len(PERSON)}")
    visit.open("/teach")
    assert dialogs == ["beforeunload"]
