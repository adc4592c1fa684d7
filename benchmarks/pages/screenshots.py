"""Pictures of the console for the documentation, of a live system with the sample videos as cameras.

`python -m benchmarks.pages.screenshots --out docs/images` takes about four minutes. It needs the sample videos in
`POINTILLIST_DATA`, Chromium, and the bundle `imagenet`, which `make setup` makes.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import yaml
from playwright.sync_api import Page

from benchmarks.harness.browser import chromium, owner_page
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.system import RunningSystem

PLACES: Final = {"bottle": "line", "car": "yard", "one": "hall"}
"""The place that a sample video shows, by the beginning of its name."""
CAMERA: Final = "site/hall-1"
"""The camera whose page is shown, and whose frames are collected."""
WINDOWS: Final = {
    "fleet": ("/", "dark", 1280, 640),
    "camera": (f"/camera/{CAMERA}", "light", 1280, 1000),
    "teach": ("/teach", "light", 1280, 800),
    "system": ("/system", "dark", 1280, 900),
    "alerts": ("/alerts", "light", 1280, 800),
    "phone-fleet": ("/", "dark", 390, 844),
    "phone-camera": (f"/camera/{CAMERA}", "light", 390, 844),
}
"""Page, theme, width and height in pixels of each picture."""


def scenario() -> dict[str, object]:
    """Return a scenario with two cameras for each sample video."""
    cameras = [
        {
            "name": f"{PLACES[file.stem.removeprefix('intel_').partition('-')[0]]}-{number}",
            "source": {"kind": "video", "file": str(file), "loop": True},
            "fps": 2,
            "profile": "video",
        }
        for file in sample_videos()
        for number in (1, 2)
    ]
    return {"site": "site", "cameras": cameras}


def collect(page: Page, console: str) -> None:
    """Let the console keep frames of `CAMERA`."""
    page.goto(f"{console}/teach")
    page.get_by_label("Camera").select_option(CAMERA)
    page.get_by_role("button", name="Collect its frames").click()


def watch_for(page: Page, console: str, group: str) -> None:
    """Set a rule for sightings of a group of classes, so that *Alerts* has some."""
    page.goto(f"{console}/sighting-rules")
    page.get_by_label("Cameras").fill("site/*")
    page.get_by_label("Class or group").fill(group)
    page.get_by_role("button", name="Save").click()


def take(page: Page, console: str, folder: Path) -> None:
    """Save all pictures."""
    for name, (path, theme, width, height) in WINDOWS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        page.goto(f"{console}{path}")
        page.wait_for_timeout(3_000)
        page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=82)


def main() -> None:
    """Parse the command line, run the system and take the pictures."""
    options = command_line(
        __doc__,
        out=Option(Path("docs/images"), "folder of the pictures"),
        after=Option(200.0, "seconds of history before the first picture"),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "scenario.yaml")
        file.write_text(yaml.safe_dump(scenario()))
        with chromium() as browser, RunningSystem(Path(folder, "state"), "--scenario", file) as system:
            system.await_role("fleet")
            time.sleep(options.after / 4)
            page, console = owner_page(browser, system)
            collect(page, console)
            watch_for(page, console, "vehicle")
            watch_for(page, console, "clothing")
            page.goto("about:blank")
            time.sleep(options.after * 3 / 4)
            take(page, console, options.out)
            system.interrupt()
            system.finish(60)


if __name__ == "__main__":
    main()
