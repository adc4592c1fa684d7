from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND


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
