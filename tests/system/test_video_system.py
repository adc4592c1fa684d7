"""The profile `video` through a whole system: a camera's clip on real brokers, recorded frame by frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from benchmarks.harness.system import RunningSystem, audit
from infra.audit.audit import audit as count_frames
from infra.state_folder import Layout
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]

FRAMES = 60
WIDTH, HEIGHT = 640, 480


def write_clip(file: Path) -> Path:
    """Write a clip of a pattern that moves."""
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            luma = 128 + 60 * np.sin((right + 4 * number) / 31) + 50 * np.sin((down - 2 * number) / 23)
            shown = np.stack([luma, 255 - luma, luma // 2], axis=2).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))
    return file


def test_a_clip_is_recorded_frame_by_frame_although_the_bridge_is_killed_within_a_group(tmp_path: Path) -> None:
    camera = {
        "name": "door",
        "source": {"kind": "video", "file": str(write_clip(tmp_path / "clip.mp4"))},
        "fps": 10,
        "probe_share": 0.1,
        "profile": "video",
        "video": {"group_frames": 45},
    }
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump({"site": "local", "cameras": [camera]}))
    with RunningSystem(tmp_path / "state", "--scenario", scenario, "--no-prometheus") as system:
        layout = Layout(system.state)
        wait_until(lambda: system.roles().get("fleet") is not None, "the camera", within_s=120)
        wait_until(lambda: count_frames(layout).counts().frames_recorded >= 10, "frames", within_s=90, every_s=0.1)
        system.kill("bridge")
        report = system.finish()
    assert report["frames_published"] == report["frames_recorded"] == FRAMES
    assert report["frames_lost"] == report["frames_pending"] == report["frames_shed"] == 0
    assert report["frames_dead_lettered"] == 0
    assert report["strip_checked"] + report["strip_shed"] >= 5
    assert report["bytes_sent"] < 0.1 * report["bytes_raw"]
    assert audit(tmp_path / "state")[0] == 0
