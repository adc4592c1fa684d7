"""The state of a camera in a live system: the same to console, command line and metrics, and found in time."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from infra.local.process import COMMAND
from infra.up.background import RunningSystem
from infra.up.processes import FRAMES_REFUSED
from tests.waiting import wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.slow, pytest.mark.timeout(400)]

FAULT_AT_S = 6
SCENARIO = {
    "site": "yard",
    "cameras": [
        {"name": name, "source": {"kind": "scene", "size": size}, "fps": 2, "drop_ratio": 0.25}
        for name, size in (("well", [32, 32]), ("stuck", [32, 32]), ("dark", [32, 32]), ("big", [96, 128]))
    ],
    "faults": [
        {"camera": "stuck", "kind": "freeze", "at_s": FAULT_AT_S, "for_s": 900},
        {"camera": "dark", "kind": "black", "at_s": FAULT_AT_S, "for_s": 900},
    ],
}
EXPECTED = {"yard/well": "online", "yard/stuck": "frozen", "yard/dark": "black", "yard/big": "refused"}
MOST_PIXELS = 4096


def pointillist(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=120)


def by_command_line(state: Path) -> dict[str, tuple[str, str]]:
    listed = json.loads(pointillist("cameras", "--json", "--state", state).stdout)
    return {each["name"]: (each["state"], each["detail"]) for each in listed}


def by_console(address: str) -> dict[str, tuple[str, str]]:
    with urllib.request.urlopen(f"http://{address}/api/v1/cameras", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return {each["name"]: (each["state"], each["detail"]) for each in found["cameras"]}


def impaired(address: str) -> set[tuple[str, str]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    labels = [line for line in lines if line.startswith("pointillist_camera_impaired{")]
    return {(line.split('"')[1], line.split('"')[3]) for line in labels}


def write_video(file: Path) -> Path:
    """Two seconds of 96×64, more pixels than this system takes."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            picture = np.full((64, 96, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


def test_a_frozen_a_black_and_a_refused_camera_are_that_to_every_program_and_each_gives_its_reason(
    tmp_path: Path,
) -> None:
    scenario, state = tmp_path / "scenario.yaml", tmp_path / "state"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    with RunningSystem(state, "--scenario", scenario, "--max-frame-pixels", MOST_PIXELS) as system:
        system.await_role("fleet")
        console, recorder = system.roles()["console"]["listen"], system.roles()["recorder"]["metrics"]

        def found() -> bool:
            return {name: state for name, (state, _) in by_console(console).items()} == EXPECTED

        wait_until(found, "every camera in its state", within_s=FAULT_AT_S + 60, every_s=0.5)
        wait_until(lambda: by_command_line(state) == by_console(console), "the same states", within_s=20)
        assert impaired(recorder) == {("yard/stuck", "frozen"), ("yard/dark", "black"), ("yard/big", "refused")}
        reasons = {name: reason for name, (_, reason) in by_console(console).items()}
        assert "Set the camera's size to 48x72" in reasons["yard/big"]
        assert "do not change" in reasons["yard/stuck"]
        assert "black" in reasons["yard/dark"]
        status = json.loads(pointillist("status", "--json", "--state", state).stdout)
        assert status["cameras"] == {"online": 1, "frozen": 1, "black": 1, "refused": 1}

        video = write_video(tmp_path / "large.mp4")
        command = ("camera", "attach", video, "--name", "yard/attached", "--state", state, "--fps", 2)
        begun = pointillist(*command, "--size", "128x96")
        assert begun.returncode == 2
        assert f"--size: frame size: expected at most {MOST_PIXELS} pixels, got 128x96." in begun.stderr
        # It ends by itself after five seconds: the camera has learnt of the refusal by then.
        told = pointillist(*command, "--loop", "--seconds", 5)
        assert told.returncode == FRAMES_REFUSED
        assert "yard/attached: frames were refused: frame size: expected at most" in told.stderr
        assert "frames_refused" in told.stderr
        system.interrupt()
        system.finish()
