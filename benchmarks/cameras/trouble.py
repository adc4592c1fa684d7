"""Twenty RTSP streams in one `camera run`: one hangs, one dies, one is added, one removed, one has a wrong password."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.cameras.site import CameraRun, Site, site
from benchmarks.harness.rtsp import RtspServer
from benchmarks.harness.waiting import wait_until
from schemas.identity import CameraId
from schemas.pointillist_pb2 import DEGRADED, OFFLINE, ONLINE

STEADY: Final = 16
SIZE: Final = (320, 240)
HANG_S: Final = 5.0
NAMED_S: Final = 15.0
_OPEN_S: Final = 120.0
_POLL_S: Final = 0.02


def trouble(folder: Path, fps: int, seconds: float) -> dict[str, Any]:
    """Return the fate of each camera. `seconds` is the time after the last fault has been reported."""
    defaults = {"fps": 0, "profile": "raw", "source": {"hang_s": HANG_S, "open_s": HANG_S}}
    counted = ("--counted", *SIZE, fps)
    names = [f"steady-{number:02}" for number in range(1, STEADY + 1)]
    with (
        RtspServer(*counted) as well,
        RtspServer(*counted) as hanging,
        RtspServer(*counted) as dying,
        RtspServer(*counted, login="viewer:right") as closed,
        site(folder, defaults) as place,
    ):
        for name in (*names, "removed"):
            place.cameras[name] = {"source": {"address": well.address("counted")}}
        place.cameras["hangs"] = {"source": {"address": hanging.address("counted")}}
        place.cameras["dies"] = {"source": {"address": dying.address("counted")}}
        place.cameras["wrong-password"] = {"source": {"address": closed.address("counted", "viewer:wrong")}}
        place.write()
        listed = len(place.cameras)
        begun = time.monotonic()
        with place.running() as run:
            wait_until(lambda: _named(place, "wrong-password", "401"), "a refusal", 60, every_s=_POLL_S)
            named = {"wrong-password": time.time() - _taken_up(run, place.camera("wrong-password"))}
            for name in (*names, "removed", "hangs", "dies"):
                wait_until(partial(_sends, place, name, 2 * fps), f"frames of {name}", _OPEN_S, every_s=_POLL_S)
            opened_s = time.monotonic() - begun
            hanging.pause()
            dying.kill()
            del place.cameras["removed"]
            place.cameras["added"] = {"source": {"address": well.address("counted")}}
            place.write()
            troubled = time.monotonic()
            awaited: dict[str, Callable[[], bool]] = {
                "hangs": lambda: _named(place, "hangs", "no frame for"),
                "dies": lambda: _named(place, "dies", ""),
                "removed": lambda: place.bridge.statuses.get(place.camera("removed"), (0, ""))[0] == OFFLINE,
                "added": partial(_sends, place, "added", 0),
            }
            while awaited:
                for name, holds in list(awaited.items()):
                    if holds():
                        named[name] = time.monotonic() - troubled
                        del awaited[name]
                if time.monotonic() - troubled > 4 * NAMED_S:
                    raise RuntimeError(f"reports of faults: expected {', '.join(awaited)}, got a timeout")
                time.sleep(_POLL_S)
            reasons = {
                name: place.bridge.statuses[place.camera(name)][1] for name in ("hangs", "dies", "wrong-password")
            }
            shown = {name: place.phase(name) for name in ("hangs", "dies", "wrong-password", "added")}
            time.sleep(seconds)
            hanging.resume()
            with RtspServer(*counted, port=dying.port):
                back = {
                    name: wait_until(partial(_online, place, name), f"{name} back", 60, every_s=_POLL_S)
                    for name in ("hangs", "dies")
                }
            status = run.end()
        left = {event["camera"]: event for event in run.events("camera_left")}
        rows = [_row(place, name, left) for name in (*names, "added")]
        return {
            "listed": listed,
            "frames_per_second": fps,
            "size": SIZE,
            "seconds": time.monotonic() - begun,
            "opened_s": opened_s,
            "named_s": named,
            "reasons": reasons,
            "shown": shown,
            "back_s": back,
            "exit_status": status,
            "restarted": len(run.events("camera_changed")),
            "cameras": rows,
        }


def _row(place: Site, name: str, left: dict[str, Any]) -> dict[str, Any]:
    """Return the row of an undisturbed camera: the pictures missing between its first and its last one."""
    numbers = place.bridge.numbers(place.camera(name))
    spanned = numbers[-1] - numbers[0] + 1
    ended = left[place.camera(name)]
    return {
        "camera": name,
        "frames": len(numbers),
        "missed": spanned - len(set(numbers)),
        "out_of_order": sum(later <= earlier for earlier, later in pairwise(numbers)),
        "published": ended["frames_published"],
        "skipped": ended["frames_skipped"],
        "pending": ended["frames_pending"],
    }


def _taken_up(run: CameraRun, camera: CameraId) -> float:
    """Return the time at which the command started a camera, in Unix seconds."""
    [added] = [event for event in run.events("camera_added") if event["camera"] == camera]
    return datetime.fromisoformat(added["timestamp"]).timestamp()


def _named(place: Site, name: str, reason: str) -> bool:
    """Return whether both the broker and `cameras.json` report a camera's fault."""
    state, detail = place.bridge.statuses.get(place.camera(name), (0, ""))
    return state == DEGRADED and reason in detail and place.phase(name)[0] == "failing"


def _sends(place: Site, name: str, more_than: int) -> bool:
    """Return whether the bridge has more than this many frames of a camera."""
    return place.bridge.frames(place.camera(name)) > more_than


def _online(place: Site, name: str) -> bool:
    return place.bridge.statuses[place.camera(name)][0] == ONLINE
