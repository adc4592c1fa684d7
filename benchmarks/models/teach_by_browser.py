"""From the first label to the promoted model: `python -m benchmarks.models.teach_by_browser --json FILE`.

`pointillist up` runs with the sample video of a corridor as its one camera and the general network. People pass at
their real speed, and the empty corridor lasts eight times as long as in the video: a usual camera sees nobody most of
the time. The console collects frames. Chromium then labels them on the page *Teach* by the keyboard, with one look of
`--look-s` seconds at each, presses *Train*, waits for the report, and publishes the bundle. The labels are the truth of
the video, see `benchmarks.models.teach`. Frames without a truth and surplus frames of a class are discarded.

The clock starts when the page with the first frame is open, and ends when the first verdict of the taught model is in
the recorder's database. After that, the model's verdicts of `--live-s` seconds are compared with the truth.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from playwright.sync_api import Browser, Page, expect

from benchmarks.harness.browser import chromium, owner_page
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.records import rows_so_far
from benchmarks.harness.system import RunningSystem, audit
from benchmarks.harness.teach_page import first_frame, frames_of, label_first
from benchmarks.harness.videos import write_video
from benchmarks.harness.waiting import wait_until
from benchmarks.models.teach import corridor, truths
from consumers.console.pages.teach import SHOWN
from infra.state_folder import Layout
from lab.statistics import wilson

CAMERA: Final = "site/corridor"
NAME: Final = "corridor"
"""Name of the taught bundle."""
CLASSES: Final = ("nobody", "person")
_FILMED_FPS: Final = 10.0
_LONGER: Final = 8
_LOOK_S: Final = 2.0
_POLL_S: Final = 0.1
_JOB_S: Final = 600.0
_PAGE_MS: Final = 60_000.0

Result = dict[str, Any]


class Recorded:
    """Queries on the recorder's database and the console's."""

    def __init__(self, layout: Layout, truth: Sequence[str]) -> None:
        self._database, self._console = layout.database, layout.folder / "console.sqlite"
        self._truth = truth

    def waiting(self) -> Counter[str]:
        """Return the number of frames on the page *Teach* by their truth."""
        query = "select seq from console_labelled_frames where label = '' order by at_ms desc limit ?"
        return Counter(self.truth(seq) for (seq,) in rows_so_far(self._console, query, SHOWN))

    def truth(self, seq: int) -> str:
        """Return the truth of a frame: the camera sends every frame of the video in a loop, and boots once."""
        return self._truth[seq % len(self._truth)]

    def judged(self, name: str) -> list[tuple[int, str]]:
        """Return the frames with a verdict of a version of the model `name`, and their classes."""
        return rows_so_far(self._database, "select seq, class_name from frames where model_id like ?", f"{name}@%")


def most_of(labels: int) -> int:
    """Return the most labels of one class of two."""
    return labels * 4 // 5


def write_corridor(file: Path, fps: float) -> list[str]:
    """Write the video for a camera of this rate. Return the truth of each frame."""
    frames = corridor()
    truth = truths(frames)
    faster, longer = round(_FILMED_FPS / fps), round(_LONGER * fps / _FILMED_FPS)
    places = [
        place for place, each in enumerate(truth) for _ in range(longer if each == "nobody" else place % faster == 0)
    ]
    write_video(file, (frames[place] for place in places), round(_FILMED_FPS), crf="14")
    return [truth[place] for place in places]


def label(page: Page, recorded: Recorded, wanted: int, look_s: float) -> Counter[str]:
    """Label frames until there are `wanted` labels, at most `most_of` them of one class. Return the number by class."""
    given: Counter[str] = Counter()
    while given.total() < wanted:
        expect(frames_of(page).first).to_be_visible(timeout=_PAGE_MS)
        time.sleep(look_s)
        truth = recorded.truth(first_frame(page))
        if given[truth] >= most_of(wanted):
            truth = ""
        label_first(page, truth)
        given.update([truth] if truth else [])
    return given


def finished_job(page: Page) -> None:
    """Wait until the job on the page is done."""
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#job .state")).to_have_text("done", timeout=_JOB_S * 1000)


def taught(browser: Browser, system: RunningSystem, recorded: Recorded, options: Any) -> Result:
    """Collect, label, train and publish. Return the seconds of each step."""
    page, console = owner_page(browser, system)
    page.on("dialog", lambda dialog: dialog.accept())

    def offered() -> bool:
        page.goto(f"{console}/teach")
        return page.locator(f"option:text-is('{CAMERA}')").count() == 1

    wait_until(offered, "the camera in the console", _JOB_S, system=system)
    page.get_by_label("Camera").select_option(CAMERA)
    page.get_by_role("button", name="Collect its frames").click()

    def enough() -> bool:
        found = recorded.waiting()
        usable: int = sum(min(found[each], most_of(options.labels)) for each in CLASSES)
        return usable >= int(options.labels)

    collecting_s = wait_until(enough, "collected frames", options.collect_s, system=system)
    collected = recorded.waiting()
    page.goto(f"{console}/teach")
    expect(frames_of(page).first).to_be_visible()

    begun = time.monotonic()
    given = label(page, recorded, options.labels, options.look_s)
    labelled = time.monotonic()
    page.get_by_label("Name").fill(NAME)
    page.get_by_role("button", name="Train").click()
    finished_job(page)
    trained = time.monotonic()
    summary = page.locator("#job .said").inner_text()
    page.get_by_role("button", name="Publish the taught bundle").click()
    wait_until(lambda: recorded.judged(NAME), "a taught verdict", _JOB_S, every_s=_POLL_S, system=system)
    served = time.monotonic()
    time.sleep(options.live_s)
    verdicts = [(recorded.truth(seq), found) for seq, found in recorded.judged(NAME)]
    sure = [(truth, found) for truth, found in verdicts if truth and found in CLASSES]
    right = wilson(sum(truth == found for truth, found in sure), len(sure))
    return {
        "collecting_s": round(collecting_s, 1), "collected": dict(collected), "labels": dict(given),
        "look_s": options.look_s, "labelling_s": round(labelled - begun, 1), "training_s": round(trained - labelled, 1),
        "publishing_s": round(served - trained, 1), "whole_s": round(served - begun, 1), "report": summary,
        "live": {"verdicts": len(verdicts), "sure": len(sure), "right": right._asdict()},
    }  # fmt: skip


def main() -> None:
    """Run the system and the browser, print the figures, and write the JSON."""
    options = command_line(
        __doc__,
        json=Path,
        labels=Option(40, "labels in all"),
        look_s=Option(_LOOK_S, "seconds of a look at each frame"),
        fps=Option(2.5, "frames a second of the camera"),
        collect_s=Option(1200.0, "seconds that the collection may take"),
        live_s=Option(60.0, "seconds of live verdicts that are compared with the truth"),
    )
    load = round(os.getloadavg()[0], 1)
    site, _, name = CAMERA.partition("/")
    with tempfile.TemporaryDirectory(prefix="pointillist-teach-") as folder:
        file, scenario = Path(folder, "corridor.mp4"), Path(folder, "scenario.yaml")
        truth = write_corridor(file, options.fps)
        source = {"kind": "video", "file": str(file), "loop": True}
        scenario.write_text(
            yaml.safe_dump({"site": site, "cameras": [{"name": name, "source": source, "fps": options.fps}]})
        )
        with chromium() as browser, RunningSystem(Path(folder, "state"), "--scenario", scenario) as system:
            system.await_role("fleet")
            found = taught(browser, system, Recorded(Layout(system.state), truth), options)
            system.interrupt()
            system.finish()
            status, audited = audit(system.state)
    found |= {"frames_recorded": audited["frames_recorded"], "frames_lost": audited["frames_lost"], "audit": status}
    found |= {
        "fps": options.fps,
        "load": load,
        "machine": machine("torch", "openvino", cores=len(os.sched_getaffinity(0))),
    }
    report(found, options.json)


if __name__ == "__main__":
    main()
