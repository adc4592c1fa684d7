"""Sources that fail while they are tried or decoded: one line for each error, and nothing stays open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import av
import pytest
from pydantic import SecretStr

from producers.camera.camera import _close_opened
from producers.sources import decoder, trial, url
from producers.sources.decoder import decode_video
from producers.sources.examine import _codec
from producers.sources.settings import SourceSettings
from producers.sources.trial import try_sources
from schemas.errors import ConfigError, SourceError, SourceHungError

STREAM = SourceSettings(kind="url", address=SecretStr("rtsp://127.0.0.1:1/x"))


class Empty:
    """A source at its end."""

    closed = False

    def read(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def test_a_source_without_a_picture_is_reported_as_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Empty()
    monkeypatch.setattr(trial, "open_source", lambda _: source)
    found = try_sources({"door": STREAM}, picture=True)["door"]
    assert str(found.error) == "expected a picture, got none: the source is at its end"
    assert source.closed
    assert try_sources({"door": STREAM})["door"].error is None


@pytest.mark.parametrize("error", [SourceError("no file"), ConfigError("no file")])
def test_any_error_of_opening_is_reported_as_a_source_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(trial, "open_source", refuse)
    found = try_sources({"door": STREAM})["door"]
    assert isinstance(found.error, SourceError)
    assert str(found.error) == "no file"


def test_a_trial_waits_as_long_as_the_sources_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: object) -> Empty:
        time.sleep(1.5)
        return Empty()

    monkeypatch.setattr(trial, "open_source", slow)
    monkeypatch.setattr(trial, "_TRIAL_S", 0.2)
    for open_s, wanted in ((2.0, "None"), (1e-6, "expected an answer within 1 s, got none")):
        source = STREAM.model_copy(update={"open_s": open_s})
        assert str(try_sources({"door": source}, one_deadline=True)["door"].error) == wanted


class Container:
    """A stream that fails after its frames."""

    def __init__(self, *packets: Any, error: av.FFmpegError | None = None) -> None:
        self._error = error or av.FFmpegError(5, "Input/output error")
        self.streams = SimpleNamespace(video=[SimpleNamespace(index=0, codec_context=SimpleNamespace(name="h264"))])
        self._packets = packets
        self.closed = False

    def demux(self) -> Iterator[Any]:
        yield from self._packets
        raise self._error

    def close(self) -> None:
        self.closed = True


def packet(index: int, *frames: object) -> SimpleNamespace:
    return SimpleNamespace(stream=SimpleNamespace(index=index), size=3, decode=lambda: frames)


def test_invalid_data_ends_a_recording_and_a_failed_read_raises_an_error() -> None:
    picture = av.VideoFrame(8, 8, "rgb24")
    packets = packet(1, "sound"), packet(0, picture, "subtitle")
    cut_off: Any = Container(*packets, error=av.InvalidDataError(1, "Invalid data found"))
    assert list(decode_video(cut_off, "door")) == [picture]
    for hang_s in (None, 60.0):
        frames = decode_video(Container(*packets), "door", hang_s=hang_s)  # type: ignore[arg-type]  # a stand-in
        assert next(frames) is picture
        with pytest.raises(SourceError, match=r"^door: .*Input/output error"):
            next(frames)


def test_a_live_stream_that_breaks_after_a_silence_is_reported_as_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 100.0, 100.0))
    monkeypatch.setattr(decoder, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    broken: Any = Container()
    with pytest.raises(SourceHungError):
        next(decode_video(broken, "door", hang_s=60.0))


def test_a_container_without_a_video_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container()

    def refuse(*_: object) -> None:
        raise SourceError("no video stream")

    monkeypatch.setattr(av, "open", lambda *_, **__: container)
    monkeypatch.setattr(decoder, "_check_video", refuse)
    with pytest.raises(SourceError, match="no video stream"):
        url.open_container(STREAM, "door")
    assert container.closed


def test_a_stream_without_a_codec_has_an_empty_codec_name() -> None:
    data: Any = SimpleNamespace()
    named: Any = SimpleNamespace(codec_context=SimpleNamespace(name="aac"))
    assert (_codec(data), _codec(named)) == ("", "aac")


async def test_a_source_opened_after_its_camera_was_closed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    cancelled: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    source = Empty()
    opened.set_result(source)
    failed.set_exception(SourceError("no file"))
    cancelled.cancel()
    for each in (opened, failed, cancelled):
        _close_opened(each)
    assert source.closed
