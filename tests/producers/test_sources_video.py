"""Video files and videos on web servers as sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import SecretStr

from benchmarks.harness.videos import shades, write_video
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.sources.source import Source
from producers.sources.url import public_address
from schemas.errors import SourceError
from tests.producers.web_rig import web_server

FRAMES = 14


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write grey frames of 48 × 32, each brighter by 16, with B-frames so that packets are out of order."""
    file = tmp_path_factory.mktemp("video") / "steps.mp4"
    return write_video(file, shades(FRAMES, 48, 32, 16), bf="2", g="5", crf="1")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file with only a sound stream."""
    file = tmp_path_factory.mktemp("sound") / "silence.wav"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


@pytest.fixture(scope="module")
def web(video: Path) -> Iterator[str]:
    """Yield the address of a web server that serves the video."""
    with web_server(video.parent) as address:
        yield address


def numbers(source: Source, count: int = 1000) -> list[tuple[int, int]]:
    """Return positions with the frame numbers that the brightness shows."""
    found = []
    for _ in range(count):
        if (captured := source.read()) is None:
            break
        found.append((captured.position, round(float(captured.picture.mean()) / 16)))
    return found


def test_a_video_yields_every_frame_once_and_ends(video: Path) -> None:
    source = open_source(SourceSettings(kind="video", file=video))
    assert numbers(source) == [(number, number) for number in range(FRAMES)]
    assert source.read() is None
    source.close()


def test_a_file_in_the_current_folder_may_have_a_colon_in_its_name(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path("2026-11-29T10:20:30.mp4")
    (tmp_path / file).write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    source = open_source(SourceSettings(kind="video", file=file))
    assert len(numbers(source)) == FRAMES
    source.close()


@pytest.mark.parametrize("position", [0, 3, 7, FRAMES - 1])
def test_seeking_returns_the_requested_frame_forwards_and_backwards(video: Path, position: int) -> None:
    source = open_source(SourceSettings(kind="video", file=video))
    numbers(source, 6)
    source.seek(position)
    assert numbers(source, 1) == [(position, position)]
    source.close()


def test_a_looped_video_continues_its_positions_and_a_new_camera_resumes_in_a_later_pass(video: Path) -> None:
    settings = SourceSettings(kind="video", file=video, loop=True)
    source = open_source(settings)
    assert numbers(source, 2 * FRAMES + 1)[-2:] == [(2 * FRAMES - 1, FRAMES - 1), (2 * FRAMES, 0)]
    source.close()
    again = open_source(settings)
    again.seek(2 * FRAMES + 5)
    assert numbers(again, 1) == [(2 * FRAMES + 5, 5)]
    again.seek(4)
    assert numbers(again, 1) == [(4, 4)]
    again.close()


def test_a_seek_beyond_the_end_ends(video: Path) -> None:
    source = open_source(SourceSettings(kind="video", file=video))
    source.seek(FRAMES + 3)
    assert source.read() is None
    source.close()


def test_a_video_keeps_its_own_size_unless_a_size_is_set(video: Path) -> None:
    for size, shape in ((None, (32, 48, 3)), ((16, 8), (8, 16, 3))):
        source = open_source(SourceSettings(kind="video", file=video, size=size))
        captured = source.read()
        assert captured is not None
        assert captured.picture.shape == shape
        source.close()


def test_a_truncated_video_yields_its_complete_frames(video: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.mp4"
    file.write_bytes(video.read_bytes()[:-300])
    source = open_source(SourceSettings(kind="video", file=file))
    found = numbers(source)
    assert 0 < len(found) <= FRAMES
    assert found[0] == (0, 0)
    source.close()


def test_files_without_video_are_source_errors(tmp_path: Path, sound: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a film")
    for file, message in (
        (tmp_path / "nowhere.mp4", "nowhere.mp4: No such file"),
        (text, "text.mp4: Invalid data"),
        (tmp_path, "Is a directory"),
        (sound, "expected a video stream, got audio"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(SourceSettings(kind="video", file=file))


def test_a_video_on_a_web_server_is_no_live_source_and_ends(web: str) -> None:
    source = open_source(SourceSettings(kind="url", address=SecretStr(f"{web}/steps.mp4")))
    assert not source.live
    assert numbers(source) == [(number, number) for number in range(FRAMES)]
    source.close()
    again = open_source(SourceSettings(kind="url", address=SecretStr(f"{web}/steps.mp4")))
    again.seek(9)
    assert numbers(again, 2) == [(9, 9), (10, 10)]
    again.close()


def test_a_missing_file_on_a_web_server_is_a_source_error_without_the_secrets(web: str) -> None:
    address = web.replace("http://", "http://user:pass-word@") + "/none.mp4?token=abcdef#part"
    with pytest.raises(SourceError, match=f"{web}/…: .*404") as caught:
        open_source(SourceSettings(kind="url", address=SecretStr(address)))
    assert "pass-word" not in str(caught.value)
    assert "abcdef" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("rtsp://user:p%40ss@host:8554/a/b?key=1#c", "rtsp://host:8554/…"),
        ("http://user:p@ss@host/x", "http://host/…"),
        ("rtsp://host:554/user=admin_password=secret_channel=1.sdp?real", "rtsp://host:554/…"),
        ("rtsp://host/0/admin:secret/main", "rtsp://host/…"),
        ("rtsp://host?pwd=secret", "rtsp://host/…"),
        ("rtsp://host/", "rtsp://host/"),
        ("rtsp://[::1]:8554/live", "rtsp://[::1]:8554/…"),
        ("rtsp://user:[secret@host/x", "rtsp://…"),
        ("rtsp://user:sec/ret@host/x", "rtsp://…"),
        ("rtsp://user:sec?ret@host/x", "rtsp://…"),
        ("http://cam/video?mail=a@b&pwd=secret", "http://…"),
        ("rtsp://token@host/x", "rtsp://host/…"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_errors_show_an_address_without_its_secrets(address: str, public: str) -> None:
    assert public_address(address) == public
