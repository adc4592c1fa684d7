"""RTSP cameras: frames, errors, and hangs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from benchmarks.harness.rtsp import RtspServer
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.sources.source import Source
from schemas.errors import SourceError, SourceHungError

LOGIN = "viewer:pass-word"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with RtspServer(login=LOGIN) as server:
        yield server.port


def camera(port: int, login: str = LOGIN, path: str = "live", hang_s: float = 1.0, open_s: float = 15.0) -> Source:
    address = f"rtsp://{login}@127.0.0.1:{port}/{path}"
    return open_source(SourceSettings(kind="url", address=SecretStr(address), hang_s=hang_s, open_s=open_s))


def exhaust(source: Source) -> None:
    while source.read():
        pass


def test_an_rtsp_camera_yields_frames_in_its_own_size(port: int) -> None:
    source = camera(port, hang_s=10)
    assert source.live
    assert source.blocking
    for position in range(5):
        captured = source.read()
        assert captured is not None
        assert captured.picture.shape == (48, 64, 3)
        assert (captured.position, captured.truth) == (position, None)
        assert captured.picture.std() > 20  # a test pattern, not an empty picture
    source.close()


def test_a_camera_without_tcp_is_read_over_udp(port: int) -> None:
    source = camera(port, path="udp", hang_s=10)
    for _ in range(5):
        captured = source.read()
        assert captured is not None
        assert captured.picture.std() > 20
    source.close()


@pytest.mark.parametrize(
    ("login", "path", "message"), [("viewer:not-this-one", "live", "401"), (LOGIN, "elsewhere", "404")]
)
def test_a_rejected_login_or_path_is_a_source_error_without_the_password(
    port: int, login: str, path: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        camera(port, login, path)
    assert login.partition(":")[2] not in str(caught.value)
    assert not isinstance(caught.value, SourceHungError)


def test_a_closed_port_is_a_source_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="refused"):
            camera(unused.getsockname()[1])


def test_a_hang_is_reported_after_its_limit_and_the_end_of_a_stream_at_once() -> None:
    with RtspServer(login=LOGIN) as server:
        port = server.port
        source, other = camera(port, hang_s=5), camera(port, hang_s=30)
        assert source.read() is not None
        assert other.read() is not None
        server.pause()
        started = time.monotonic()
        with pytest.raises(SourceHungError, match=r"127.0.0.1:\d+/…: no frame for 5 s"):
            exhaust(source)
        assert time.monotonic() - started < 25, "before the other camera would be noticed"
        source.close()
        with pytest.raises(SourceHungError, match=r"did not answer for 0.5 s"):
            camera(port, open_s=0.5)
        server.kill()
        with pytest.raises(SourceError, match=r"ended the stream|reset|Input/output") as caught:
            exhaust(other)
        assert not isinstance(caught.value, SourceHungError)
        other.close()
