"""The fate of every frame of a file and of a 1080p stream."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import av

from benchmarks.cameras.site import site
from benchmarks.harness.rtsp import RtspServer
from benchmarks.harness.waiting import wait_until

LARGE: Final = (1920, 1080)


def whole_file(folder: Path, film: Path) -> dict[str, Any]:
    """Send a whole film. The command ends by itself when all frames are confirmed."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        size = stream.width, stream.height
        frames = sum(1 for _ in container.decode(stream))
    with site(folder, {"fps": 0}) as place:
        place.cameras["film"] = {"source": {"file": str(film)}}
        place.write()
        begun = time.monotonic()
        with place.running() as run:
            status = run.process.wait(600)
        [left] = run.events("camera_left")
        came = place.bridge.sequence(place.camera("film"))
    return {
        "film": film.name,
        "size": size,
        "frames": frames,
        "published": left["frames_published"],
        "confirmed": len(came),
        "in_sequence": came == list(range(frames)),
        "skipped": left["frames_skipped"],
        "pending": left["frames_pending"],
        "seconds": time.monotonic() - begun,
        "exit_status": status,
    }


def large_stream(folder: Path, fps: int, seconds: float, options: dict[str, Any]) -> dict[str, Any]:
    """Run a 1080p stream for some seconds, and account for every picture from the first to the last one sent.

    The server numbers pictures from 0 at the first request, so no missed picture goes unnoticed.
    """
    with RtspServer("--counted", *LARGE, fps) as server, site(folder, options) as place:
        place.cameras["large"] = {"source": {"address": server.address("counted")}}
        place.write()
        camera = place.camera("large")
        with place.running() as run:
            wait_until(lambda: place.bridge.frames(camera) > 0, "frames", 60, every_s=0.02)
            time.sleep(seconds)
            status = run.end()
        [left] = run.events("camera_left")
        came = place.bridge.frames(camera)
        pictures = place.bridge.last_number(camera) + 1
    return {
        "size": LARGE,
        "frames_per_second": fps,
        "sent_at": options["fps"] or "all",
        "pictures": pictures,
        "published": left["frames_published"],
        "confirmed": came,
        "skipped": left["frames_skipped"],
        "unaccounted": pictures - left["frames_published"] - left["frames_skipped"],
        "pending": left["frames_pending"],
        "exit_status": status,
    }
