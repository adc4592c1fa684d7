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


def write_scenario(folder: Path) -> Path:
    """Write a scenario of two cameras that send the clip: in short groups, and in one."""
    common = {
        "source": {"kind": "video", "file": str(write_clip(folder / "clip.mp4"))},
        "fps": 10,
        "probe_share": 0.1,
        "profile": "video",
    }
    cameras = [
        {"name": "door", "video": {"group_frames": 15}, **common},
        {"name": "yard", "video": {"group_frames": 1000, "group_s": 60}, **common},
    ]
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump({"site": "local", "cameras": cameras}))
    return file


def test_kills_of_processor_and_bridge_in_the_middle_of_groups_cost_no_frame(tmp_path: Path) -> None:
    config = tmp_path / "up.toml"
    config.write_text("[processor]\ncamera_queue_s = 1000\n")  # a busy machine must not cost frames
    options = ("--scenario", write_scenario(tmp_path), "--config", config, "--no-prometheus")
    with RunningSystem(tmp_path / "state", *options) as system:
        layout = Layout(system.state)
        wait_until(lambda: system.roles().get("fleet") is not None, "the cameras", within_s=120)
        wait_until(lambda: count_frames(layout).counts().frames_recorded >= 20, "frames", within_s=90, every_s=0.1)
        system.kill("processor-1")
        system.kill("bridge")
        report = system.finish()
    assert report["frames_published"] == report["frames_recorded"] == 2 * FRAMES
    assert report["frames_lost"] == report["frames_pending"] == report["frames_shed"] == 0
    assert report["frames_dead_lettered"] == 0
    assert report["strip_checked"] + report["strip_shed"] >= 5
    assert report["bytes_sent"] < 0.1 * report["bytes_raw"]
    assert audit(tmp_path / "state")[0] == 0
