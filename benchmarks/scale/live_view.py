"""First verdict and live view: `python -m benchmarks.scale.live_view [first view] --json FILE`, four minutes at most.

- `first`: `up --source` of a sample video, 768×432, with the general network, RUNS times. The figure is the seconds
  from the command to the first recorded frame. The steps name the moments on the way: the start of each role's process,
  the first line of each kind in the processor's log, its loaded network, and the first frame's capture, verdict and
  record. `cpu_s` has the CPU seconds of each role until then, which do not depend on other work of the machine.
- `view`: CAMERAS cameras of that video, profile `video`, one at 5 frames/s and the others at 1; TURNS turns without and
  with the first one's page open, in either order. The page is read as a browser does, events and pictures. The figures
  are its pictures a second, their age on arrival since capture, and the p90 from capture to verdict of the other
  cameras, with the page open ÷ closed. All turns together have about a hundred frames of them, too few for a p99.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx2
import psutil
import yaml

from benchmarks.harness.command_line import command_line
from benchmarks.harness.data_sets import sample_video
from benchmarks.harness.document import machine, report
from benchmarks.harness.general import general_bundle
from benchmarks.harness.records import count_frames, rows
from benchmarks.harness.system import RunningSystem
from benchmarks.harness.waiting import await_cameras, wait_until
from infra.state_folder import Layout
from schemas.clock import unix_ms
from schemas.runtime.json_files import read_json

CAMERAS: Final = 4
FPS: Final = 5.0
VIEWED: Final = "site/door-0"
VIDEO: Final = "intel_one-by-one-person-detection.mp4"
RUNS: Final = 2
TURNS: Final = 3
TURN_S: Final = 12.0
_SETTLES_S: Final = 4.0
_WAIT_S: Final = 200.0
_PICTURE: Final = re.compile(rf"/picture/{VIEWED}\.jpg\?[0-9a-f]+-[0-9]+")
_AGE: Final = re.compile(r'Rebuilt by the server<span class="age" data-at="([0-9]+)"')

Result = dict[str, Any]


def first(folder: Path) -> Result:
    """Return the seconds until the first recorded frame, and the moments on the way."""
    state = folder / "state"
    bundle = general_bundle(folder)
    layout, begun_s = Layout(state), time.time()
    with RunningSystem(state, "--source", sample_video(VIDEO), "--bundle", bundle) as system:
        wait_until(lambda: count_frames(layout.database), "the first frame", _WAIT_S, system=system)
        query = "select captured_ms, processed_ms, recorded_ms from frames order by recorded_ms limit 1"
        ((captured_ms, processed_ms, recorded_ms),) = rows(layout.database, query)
        steps = {"captured": captured_ms / 1000, "judged": processed_ms / 1000, "recorded": recorded_ms / 1000}
        for role, entry in system.roles().items():
            with suppress(psutil.NoSuchProcess):
                steps[f"{role} begins"] = psutil.Process(entry["pid"]).create_time()
        for line in (state / "logs" / "processor-1.log").read_text().splitlines():
            with suppress(json.JSONDecodeError):
                event = json.loads(line)
                name = "network loaded" if event["event"] == "device_ready" else f"processor: {event['event']}"
                steps.setdefault(name, datetime.fromisoformat(event["timestamp"]).timestamp())
        used_s = {role: round(seconds, 1) for role, seconds in system.cpu_seconds().items()}
        system.interrupt()
        system.finish()
    moments = {name: round(at_s - begun_s, 2) for name, at_s in sorted(steps.items(), key=lambda step: step[1])}
    return {"seconds": moments["recorded"], "steps": moments, "cpu_s": used_s}


def watch(page: str, until_s: float) -> Result:
    """Read a camera's page until the monotonic time `until_s`; return pictures a second and their ages in seconds."""
    ages, seen = list[float](), set[str]()
    begun_s = time.monotonic()
    with httpx2.Client(timeout=20) as client, client.stream("GET", f"{page}/camera/{VIEWED}/live") as events:
        for line in events.iter_lines():
            if time.monotonic() > until_s:
                break
            if (picture := _PICTURE.search(line)) is not None:
                url = picture[0]
            if (age := _AGE.search(line)) is not None and url not in seen:
                seen.add(url)
                if httpx2.get(f"{page}{url}", timeout=20).status_code == 200:
                    ages.append(time.time() - int(age[1]) / 1000)
    ages.sort()
    return {
        "pictures_per_s": round(len(ages) / (time.monotonic() - begun_s), 2),
        "age_median_s": round(median(ages), 3) if ages else None,
        "age_p95_s": round(ages[int(0.95 * (len(ages) - 1))], 3) if ages else None,
    }


def others(layout: Layout, since_ms: int, until_ms: int) -> list[float]:
    """Return the seconds from capture to verdict of each frame of the cameras without an open page."""
    query = "select processed_ms - captured_ms from frames where camera <> ? and processed_ms between ? and ?"
    return [row[0] / 1000 for row in rows(layout.database, query, VIEWED, since_ms, until_ms)]


def p90(turns: Sequence[Sequence[float]]) -> float:
    """Return the p90 of the times of all turns together, the value that at most a tenth of them exceeds.

    Raises ValueError for fewer than 50 times, of which five exceed it.
    """
    times = sorted(time_s for turn in turns for time_s in turn)
    if len(times) < 50:
        raise ValueError(f"times: expected at least 50 for a p90, got {len(times)}")
    return times[math.ceil(0.9 * len(times)) - 1]


def view(folder: Path) -> Result:
    """Return rate and age of a live view, and its price for the other cameras."""
    scenario, state = folder / "scenario.yaml", folder / "state"
    source = {"kind": "video", "file": str(sample_video(VIDEO)), "loop": True}
    one = {"source": source, "profile": "video", "drop_ratio": 0.25}
    groups = [{"name": "door-0", "fps": FPS, **one}, {"name": "yard-{index}", "count": CAMERAS - 1, "fps": 1.0, **one}]
    scenario.write_text(yaml.safe_dump({"site": "site", "cameras": groups}))
    layout, turns = Layout(state), {False: list[Result](), True: list[Result]()}
    times = {False: list[list[float]](), True: list[list[float]]()}
    with RunningSystem(state, "--scenario", scenario, "--bundle", general_bundle(folder)) as system:
        await_cameras(system, CAMERAS, _WAIT_S)
        page = f"http://{system.roles()['console']['listen']}"
        time.sleep(2 * _SETTLES_S)
        for turn in range(TURNS):
            for is_open in (False, True) if turn % 2 else (True, False):
                watched = watch(page, time.monotonic() + _SETTLES_S) if is_open else {}
                time.sleep(0 if is_open else 2 * _SETTLES_S)  # a closed page counts as open for some seconds
                since_ms = unix_ms()
                if is_open:
                    watched = watch(page, time.monotonic() + TURN_S)
                else:
                    time.sleep(TURN_S)
                time.sleep(1)
                until_ms = since_ms + int(1000 * TURN_S)
                times[is_open].append(others(layout, since_ms, until_ms))
                turns[is_open].append({"others_frames": len(times[is_open][-1]), **watched})
        system.interrupt()
        _, found = system.wait(60.0)
    opened_s, closed_s = p90(times[True]), p90(times[False])
    return {
        "cameras": CAMERAS, "fps": FPS, "open": turns[True], "closed": turns[False],
        "pictures_per_s": median(turn["pictures_per_s"] for turn in turns[True]),
        "age_median_s": median(turn["age_median_s"] for turn in turns[True]),
        "others_p90_open_s": round(opened_s, 3), "others_p90_closed_s": round(closed_s, 3),
        "others_p90_ratio": round(opened_s / closed_s, 3), "frames_lost": found["frames_lost"],
    }  # fmt: skip


def main() -> None:
    """Run the parts, print their results, and write the JSON. Parts that were not asked for stay in it."""
    arguments = command_line(__doc__, "first", "view", json=Path)
    file = arguments.json
    result: Result = read_json(file) if file else {}
    result["machine"] = machine("torch", "openvino")
    for name in arguments.names or ("first", "view"):
        load = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(prefix="pointillist-view-") as folder:
            if name == "view":
                found: Result = view(Path(folder))
            else:
                runs = [first(Path(folder, str(number))) for number in range(RUNS)]
                found = {"seconds": median(run["seconds"] for run in runs), "runs": runs}
        result[name] = found | {"load": load}
        report(result, file, shown=False)
    report(result, None)


if __name__ == "__main__":
    main()
