"""The drill `large`: cameras of 1920×1080 next to small ones, on few cores; see `benchmarks.reliability.drills`."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import yaml

from benchmarks.harness.data_sets import sample_video
from benchmarks.harness.quantile import quantile
from benchmarks.harness.records import rows
from benchmarks.harness.system import Result, RunningSystem, on_cores, summary
from infra.state_folder import Layout
from processors.bundle import shipped_bundle

FPS: Final = 15
SCENES: Final = 8
"""Different pictures of a large simulated camera."""
FOOTAGE_S: Final = 4
"""Seconds of a sample video that a large camera repeats."""
STARTING: Final = 0.05
"""Share of the first frames that is excluded: parts of the system are still starting then."""


def scenario(cameras: int, fps: float = FPS, profile: str = "raw", file: Path | None = None) -> dict[str, Any]:
    """Return a scenario: `cameras` of 1920×1080 at `fps` with scenes, and eight of 32×32 at 2 frames/s.

    The pictures of the large cameras come from a video `file`; without one, they are prerendered scenes in RGB.
    """
    usual = {"drop_ratio": 0.25, "probe_share": 0.0}
    source: dict[str, Any] = {"kind": "scene", "size": [1920, 1080], "prerendered": SCENES}
    if file is not None:
        source = {"kind": "video", "file": str(file), "loop": True}
    return {
        "site": "local",
        "cameras": [
            {"name": "large-{index}", "count": cameras, "source": source, "fps": fps, "profile": profile} | usual,
            {"name": "cam-{index}", "count": 8, "source": {"kind": "scene"}, "fps": 2} | usual,
        ],
    }


def large(
    folder: Path,
    seconds: float = 60.0,
    cores: int = 2,
    cameras: int = 1,
    fps: float = FPS,
    profile: str = "raw",
) -> Result:
    """Run the scenario at r = .25 with the scene bundle, with every process on the same cores.

    Under `video` the large cameras decode a sample video: as from a camera's own stream, their pictures are planes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, state = folder / "large.yaml", folder / "large"
    video = write_footage(folder / "footage.mp4", fps) if profile == "video" else None
    file.write_text(yaml.safe_dump(scenario(cameras, fps, profile, video)))
    options = ("--scenario", file, "--bundle", shipped_bundle("scene"), "--seconds", seconds, "--no-prometheus")
    with on_cores(cores):
        with RunningSystem(state, *options) as system:
            system.await_role("fleet")
            cpu = system.cpu_until_end()
            report = system.finish()
        shown = summary(report, state) | {"frames_skipped": report["frames_skipped"]}
    shown["frames_expected_large"] = round(cameras * fps * seconds)
    shown["cpu_s_by_role"] = cpu
    return shown | latencies(Layout(state).database)


def write_footage(file: Path, fps: float, width: int = 1920, height: int = 1080) -> Path:
    """Write the first `FOOTAGE_S` seconds of a sample video in another size, as H.264; return the file."""
    with av.open(str(sample_video())) as pictures, av.open(str(file), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1000), options={"preset": "ultrafast", "crf": "23"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in islice(pictures.decode(video=0), round(FOOTAGE_S * fps)):
            large = picture.reformat(width=width, height=height, format="yuv420p")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large.to_ndarray(), format="yuv420p")))
        container.mux(stream.encode())
    return file


def latencies(database: Path) -> Result:
    """Return the number of recorded frames, and the seconds from capture to record after the start, for large and small
    cameras."""
    found: Result = {}
    for kind, where in (("large", "like"), ("others", "not like")):
        query = f"select recorded_ms - captured_ms from frames where camera {where} 'local/large-%' order by seq"
        every = rows(database, query)
        waited = [wait / 1000 for (wait,) in every[int(STARTING * len(every)) :]]
        found[f"frames_recorded_{kind}"] = len(every)
        found[f"latency_s_{kind}"] = {
            f"p{percent}": quantile(waited, percent / 100) for percent in (50, 95, 99) if waited
        }
    return found
