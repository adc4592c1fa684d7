from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from infra.camera_identity import camera_identity, resembling
from infra.layout import Layout
from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND
from producers.publisher.first_answer import FirstAnswer, silence
from schemas.errors import SecretError
from schemas.identity import CameraId


@pytest.mark.brokers
def test_an_address_that_cannot_be_read_is_one_line_and_status_2_at_every_start(
    mosquitto: Mosquitto, state_dir: Path
) -> None:
    place = f"{mosquitto.host}:{mosquitto.port}"
    url = "http://u:hidden@127.0.0.1:9/video?pwd=hidden"
    command = [*COMMAND, "camera", "attach", url, "--name", "lab/door"]
    environment = os.environ | {"POINTILLIST_CAMERA_KEY": f"0:{'00' * 64}"}
    (state_dir / "fleet.json").write_text('{"started_ms": 1}')  # of a simulated fleet in the same folder
    for _ in range(2):
        done = subprocess.run(
            [*command, "--mqtt", place, "--spool", str(state_dir)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert done.returncode == 2
        assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == [
            "error: http://127.0.0.1:9/video: Connection refused"
        ]
        assert "Traceback" not in done.stderr
        assert "hidden" not in done.stdout + done.stderr


def write_video(file: Path) -> Path:
    """Two seconds of grey, 48×32."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(20):
            picture = np.full((32, 48, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


@pytest.mark.brokers
def test_a_region_outside_the_frame_is_one_line_and_a_camera_that_nobody_answers_says_why_within_5_s(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "grey.mp4")
    command = [*COMMAND, "camera", "attach", str(video), "--name", "lab/door", "--spool", str(tmp_path / "spools")]
    command += ["--mqtt", f"{mosquitto.host}:{mosquitto.port}", "--fps", "1", "--seconds", "5.5", "--drain", "0"]
    environment = os.environ | {"POINTILLIST_CAMERA_KEY": f"0:{'00' * 64}"}

    def attach(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=60, check=False, env=environment
        )

    refused = attach("--region", "30,0,20,20")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"error: video {video}: expected a region inside 48x32, got 20x20 at (30, 0)"
    )
    unanswered = attach()
    assert unanswered.returncode == 3
    (line,) = [json.loads(each) for each in unanswered.stderr.splitlines() if "nothing_confirmed" in each]
    assert line["camera"] == "lab/door"
    assert line["detail"] == "the broker has nobody to give frames to: no bridge runs there"


def test_a_key_that_the_system_did_not_issue_and_a_name_that_is_nearly_known_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.issue_key(CameraId("lab/door"))
    right = layout.camera_key(CameraId("lab/door")).export()
    monkeypatch.setenv("POINTILLIST_CAMERA_KEY", right)
    assert camera_identity("lab/door", None, tmp_path).key.export() == right
    with pytest.raises(
        SecretError, match=r"expected the key of lab/gate .* got that of another camera or another fleet"
    ):
        camera_identity("lab/gate", None, tmp_path)
    assert resembling("lab/dor", layout) == "lab/door"
    assert resembling("lab/door", layout) is None
    assert resembling("yard/north", layout) is None


def test_only_a_camera_whose_first_frames_nobody_confirms_speaks_of_it_and_once() -> None:
    waiting = FirstAnswer(4.0)
    assert not waiting.overdue(100.0)  # nothing was sent
    waiting.sent(100.0)
    waiting.sent(103.0)
    assert [waiting.overdue(at) for at in (103.9, 104.0, 105.0)] == [False, True, False]
    answered = FirstAnswer(4.0)
    answered.sent(0.0)
    answered.heard()
    assert not answered.overdue(9.0)
    never = FirstAnswer(None)
    never.sent(0.0)
    assert not never.overdue(1e9)
    assert "the key is not that of lab/door" in silence("lab/door", True, 1, unheard=False)
    assert "does not let it in" in silence("lab/door", False, 1, unheard=True)
    assert "ended 4 connections: the certificate" in silence("lab/door", True, 5, unheard=True)
