from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.harness.rtsp import RtspServer, counted_number
from infra.cli.camera_test import _rows, _save, _show, try_camera
from infra.cli.terminal import Console
from infra.settings.load import SettingsSources, load
from producers.camera.role_settings import CameraTestSettings
from producers.sources.examine import StreamReport
from schemas.errors import ConfigError, SourceError, UserError

LOGIN = "viewer:pass-word"


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    with RtspServer("--counted", 160, 96, 10, login=LOGIN) as server:
        yield server


def run_camera_test(url: str, options: dict[str, Any] | None = None, **own: Any) -> None:
    """Run the command with `options`, which are settings by path."""
    try_camera(load(CameraTestSettings, SettingsSources("camera-test", options=options or {})), url, **own)


def test_a_description_of_a_stream_fits_one_screen_and_a_picture_is_saved(
    server: RtspServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "seen.png"
    run_camera_test(server.address("counted"), {"seconds": 2.5}, picture=picture, show=True)
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines[:-1])) <= 80  # the last one names the file
    assert "pass-word" not in output
    assert f"rtsp://127.0.0.1:{server.port}/… " in output
    for what in ("h264", "160 x 96", "live", "its own by RTCP", "▀"):
        assert what in output
    shown = np.asarray(Image.open(picture))
    assert shown.shape == (96, 160, 3)
    assert counted_number(shown) > 10


def test_json_has_the_measured_rate_the_delay_and_the_clock(
    server: RtspServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "login").write_text(LOGIN)
    options = {"source.login.file": tmp_path / "login", "source.rotate": "90", "seconds": 4.0}
    run_camera_test(server.address("counted", ""), options, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["fps"] == pytest.approx(10, abs=1.5)
    assert (found["size"], found["sent_size"]) == ([160, 96], [96, 160])
    assert found["believed"] is True
    assert 0 <= found["delay_ms"] < 1500
    assert found["key_frames"] >= 2
    assert found["live"] is True


@pytest.mark.parametrize("seconds", [0.1, 60.0], ids=["in part", "whole"])
def test_bit_rate_and_frame_rate_of_a_file_are_those_of_its_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    file = tmp_path / "a street 50%20.mp4"
    pattern = "testsrc2=size=320x240:rate=15:duration=8"
    encode = ["-c:v", "libx264", "-g", "15", "-b:v", "400k", "-minrate", "400k", "-maxrate", "400k", "-bufsize", "100k"]
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", pattern, *encode, str(file)], check=True)
    probe = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=bit_rate", "-of", "csv=p=0"]
    oracle = float(subprocess.run([*probe, str(file)], check=True, capture_output=True, text=True).stdout)
    listed = tmp_path / "cameras.yaml"
    listed.write_text(yaml.safe_dump({"site": "yard", "cameras": [{"name": "film", "source": {"address": file.name}}]}))
    if seconds < 1:
        run_camera_test(str(file), {"seconds": seconds}, json=True)
    else:
        run_camera_test("yard/film", {"cameras": listed, "seconds": seconds}, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_s"] == pytest.approx(oracle, rel=0.25 if seconds < 1 else 0.02)
    assert found["fps"] == pytest.approx(15, rel=0.01)


def test_a_file_that_states_no_duration_is_described_as_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bare.h264"
    pattern = "testsrc2=size=160x96:rate=10:duration=2"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", pattern, "-c:v", "libx264", str(file)], check=True)
    run_camera_test(str(file), {"seconds": 60.0}, json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["live"], found["frames"], found["problem"]) == (False, 20, "")
    assert found["fps"] is None  # without time stamps, only the speed of the reading is known


def test_a_camera_of_a_file_is_tested_with_its_settings(
    server: RtspServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"address": server.address("counted"), "privacy": [[0, 0, 1, 0.5]], "hang_s": 5}
    file = tmp_path / "cameras.yaml"
    file.write_text(yaml.safe_dump({"site": "yard", "cameras": [{"name": "gate", "source": source}]}))
    run_camera_test("yard/gate", {"cameras": file, "seconds": 0.3}, picture=tmp_path / "seen.png")
    assert not np.asarray(Image.open(tmp_path / "seen.png"))[:48].any()
    with pytest.raises(ConfigError, match=r"expected one of yard/gate, got yard/door"):
        run_camera_test("yard/door", {"cameras": file})


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("none.mp4", {}, "none.mp4 is missing: expected a URL with rtsp:// or http://, a device or an existing file."),
        ("rtps://u:hidden@h/x", {}, "Protocol not found. Use rtsp://, rtsps://, http:// or https://."),
        ("rtsp://u:hidden@127.0.0.1:1/x", {}, "rtsp://127.0.0.1:1/…: Connection refused"),
        ("rtsp://u:hidden@h/x", {"source.rotate": "45"}, "source.rotate: expected 0 or 90 or 180 or 270"),
        ("rtsp://u:hidden@h/x", {"source.region": "1,2"}, "source.region: expected X,Y,WIDTH,HEIGHT"),
        ("rtsp://u:hidden@h/x", {"source.login.file": "/none"}, "user and password .*got both"),
        ("rtsp://h/x", {"source.login.file": "/none"}, "expected user:password in the file /none"),
        ("rtsp://[::1/x", {"source.login.file": __file__}, "expected user:password in the file|ValueError"),
        ("rtsp://h/x", {"source.hardware": "abacus"}, r"expected hardware that decodes \(.*\), got abacus"),
    ],
)
def test_an_invalid_setting_is_one_error_line_without_a_password(
    url: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run_camera_test(url, options)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_picture_of_another_format_is_rejected() -> None:
    with pytest.raises(UserError, match=r"--picture: expected a name that ends in \.png"):
        run_camera_test("rtsp://h/x", picture=Path("x.bmp"))


def test_a_picture_in_a_missing_folder_is_rejected_before_the_stream_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.sources.examine.examine", lambda *_: pytest.fail("the stream was opened"))
    with pytest.raises(ConfigError, match="--picture: expected a file in an existing folder, got"):
        run_camera_test("rtsp://h/x", picture=tmp_path / "none" / "x.png")


def test_the_error_for_a_refused_login_quotes_the_camera(server: RtspServer) -> None:
    with pytest.raises(SourceError, match=r"401 Unauthorized.* Check user and password. Give them by --login-file"):
        run_camera_test(server.address("counted", "viewer:wrong"))


def report_of(**changed: Any) -> StreamReport:
    """Return a report on a live camera, with these changes."""
    usual: dict[str, Any] = {
        "address": "rtsp://a/b", "codec": "h264", "profile": "High", "size": (160, 96), "announced_fps": None,
        "live": True, "snapshot": False, "hardware": False, "others": [], "opened_s": 0.5,
    }  # fmt: skip
    return StreamReport(**(usual | changed))


@pytest.mark.parametrize(
    ("changed", "row"),
    [
        ({"sent_size": (96, 160)}, ("as sent", "96 x 160")),
        ({"others": ["audio aac", "data"]}, ("other streams", "audio aac, data")),
        ({"problem": "it closed the line"}, ("ended early", "it closed the line")),
        ({"fps": 9.96, "announced_fps": 25.0}, ("frames/s", "10.0 measured, 25.0 announced")),
        ({"fps": 9.96, "live": False}, ("frames/s", "10.0 recorded")),
        ({}, ("frames/s", "too few to measure")),
        ({"snapshot": True}, ("kind", "a still picture, fetched again for each frame")),
        ({"hardware": True}, ("codec", "h264 High by hardware")),
        ({"skew_ms": -90_400}, ("clock", "its own is 90 s off ours: not used, arrival counts. Set its NTP")),
    ],
)
def test_each_field_of_the_report_has_its_row(changed: dict[str, Any], row: tuple[str, str]) -> None:
    assert row in _rows(report_of(**changed))
    usual = {"as sent", "other streams", "ended early"} - changed.keys() - {row[0]}
    assert not usual & {name for name, _ in _rows(report_of(**changed))}


def test_without_a_picture_nothing_is_saved_and_an_unwritable_file_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(report_of(), tmp_path / "none.png")
    _show(Console(), report_of())
    assert not (tmp_path / "none.png").exists()
    assert capsys.readouterr().out == ""
    grey = report_of(picture=np.zeros((2, 4, 1), np.uint8))
    _save(grey, tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as saved:
        assert saved.mode == "L"
    with pytest.raises(ConfigError, match=r"^--picture: expected a writable file, got .*No such file or directory\."):
        _save(grey, tmp_path / "nowhere" / "grey.png")
