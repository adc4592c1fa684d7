"""Interlaced streams: cameras send one moment of a frame, at the frame's time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr

from producers.sources.decoder import decode_video, open_video, to_planes
from producers.sources.deinterlacing import deinterlace
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.errors import SourceError
from schemas.pixels.packing import Picture
from tests.producers.web_rig import web_server

COUNT = 8
WOVEN = {"flags": "+ilme+ildct", "b": "8000000"}


def fields(width: int, height: int) -> Iterator[Picture]:
    """Yield frames of a bar that moves by 6 pixels from the even rows to the odd ones, and again to the next frame."""
    for number in range(2 * COUNT):
        if number % 2 == 0:
            picture = np.zeros((height, width, 3), np.uint8)
        left = 8 + 6 * number
        picture[number % 2 :: 2, left : left + 30] = 255
        if number % 2:
            yield picture


def write(file: Path, codec: str, options: dict[str, str], size: tuple[int, int] = (192, 128)) -> Path:
    """Write the frames of `fields`, in 4:2:0."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for picture in fields(*size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


def decoded(file: Path) -> list[av.VideoFrame]:
    """Return the frames as FFmpeg decodes them."""
    with av.open(str(file)) as container:
        return list(container.decode(video=0))


def samples(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Return the luma and the chroma of a frame in 4:2:0, one after the other."""
    planes = to_planes(frame)
    assert planes is not None
    assert planes.blue is not None
    assert planes.red is not None
    return np.concatenate([planes.luma.ravel(), planes.blue.ravel(), planes.red.ravel()])


def combing(picture: NDArray[np.uint8]) -> float:
    """Return the mean difference between a row and the mean of its two neighbours, which show the other field."""
    rows = picture.astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


@pytest.fixture(scope="module")
def woven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("woven") / "woven.mp4", "libx264", WOVEN)


@pytest.mark.parametrize(
    ("codec", "name"), [("libx264", "clip.mp4"), ("libx264", "clip.ts"), ("mpeg2video", "clip.ts")]
)
@pytest.mark.parametrize("planar", [False, True])
def test_the_rows_of_both_fields_agree_in_every_frame_of_a_source(
    tmp_path: Path, codec: str, name: str, planar: bool
) -> None:
    file = write(tmp_path / name, codec, WOVEN)
    assert min(combing(np.asarray(frame.to_ndarray(format="gray"), np.uint8)) for frame in decoded(file)) > 10
    with web_server(tmp_path) as address:
        url = {"kind": "url", "address": SecretStr(f"{address}/{name}")}
        for settings in ({"kind": "video", "file": file}, url):
            source = open_source(SourceSettings.model_validate(settings), planar=planar)
            read = [captured for _ in range(COUNT) if (captured := source.read()) is not None]
            source.close()
            assert [captured.position for captured in read] == list(range(COUNT))
            for captured in read:
                assert (captured.planes is not None) == planar
                assert combing(captured.picture) < 1
            # The moment is that of the first field, the even rows or the odd ones.
            edges = [int((captured.picture[64, :, 0] > 128).argmax()) for captured in read]
            assert [edge - edges[0] for edge in edges] == [12 * number for number in range(COUNT)]


def test_deinterlaced_frames_keep_their_times_and_wait_for_one_frame_only(woven: Path) -> None:
    frames = decoded(woven)
    given: list[int | None] = []

    def give() -> Iterator[av.VideoFrame]:
        for frame in frames:
            given.append(frame.pts)
            yield frame

    times: list[tuple[int | None, Fraction | None]] = []
    for frame in deinterlace(give(), "door"):
        assert len(given) <= len(times) + 2
        times.append((frame.pts, frame.time_base))
    assert times == [(frame.pts, frame.time_base) for frame in frames]
    for frame in frames:
        frame.pts = None
    assert [frame.pts for frame in deinterlace(iter(frames), "door")] == [None] * COUNT


def test_progressive_frames_are_passed_on_at_once_and_untouched(tmp_path: Path) -> None:
    frames = decoded(write(tmp_path / "progressive.mp4", "libx264", {}))
    passed = deinterlace(iter(frames), "door")
    assert all(next(passed) is frame for frame in frames)


def test_progressive_frames_among_interlaced_ones_keep_their_samples(woven: Path, tmp_path: Path) -> None:
    mixed = [*decoded(woven)[:3], *decoded(write(tmp_path / "progressive.mp4", "libx264", {}))[3:]]
    found = list(deinterlace(iter(mixed), "door"))
    assert [combing(samples(frame)[: 192 * 128].reshape(128, 192)) < 1 for frame in found] == [True] * 3 + [False] * 5
    for before, after in zip(mixed[3:], found[3:], strict=True):
        np.testing.assert_array_equal(samples(after), samples(before))


def test_a_stream_that_changes_its_size_or_coding_loses_no_frame(woven: Path, tmp_path: Path) -> None:
    smaller = decoded(write(tmp_path / "smaller.mp4", "libx264", WOVEN, (160, 96)))
    progressive = decoded(write(tmp_path / "progressive.mp4", "libx264", {}, (160, 128)))
    grey = [frame.reformat(format="gray") for frame in decoded(woven)]
    frames = [*decoded(woven), *smaller, *progressive, *grey, *smaller[:1]]
    found = list(deinterlace(iter(frames), "door"))
    assert [(each.width, each.format.name, each.pts) for each in found] == [
        (each.width, each.format.name, each.pts) for each in frames
    ]
    assert not any(each.interlaced_frame for each in found)


def test_frames_in_the_format_of_hardware_decoders_keep_their_colours(woven: Path) -> None:
    for matrix, full in ((1, 2), (1, 1), (5, 2), (2, 0)):
        planar = decoded(woven)
        semi_planar = [frame.reformat(format="nv12") for frame in planar]
        for frame in (*planar, *semi_planar):
            frame.colorspace, frame.color_range = matrix, full
        assert semi_planar[0].interlaced_frame
        for expected, found in zip(
            deinterlace(iter(planar), "door"), deinterlace(iter(semi_planar), "door"), strict=True
        ):
            assert (found.colorspace, found.color_range) == (matrix, full)
            np.testing.assert_array_equal(samples(found), samples(expected))


def test_the_single_fields_that_are_the_pictures_of_hevc_are_untouched(tmp_path: Path) -> None:
    options = {"x265-params": "interlace=tff:log-level=none", "preset": "ultrafast"}
    file = write(tmp_path / "fields.mp4", "libx265", options)
    expected = decoded(file)
    assert expected[0].interlaced_frame
    with open_video(str(file), "door", None) as container:
        for before, after in zip(expected, decode_video(container, "door"), strict=True):
            np.testing.assert_array_equal(samples(after), samples(before))


def test_interlaced_pictures_that_the_filter_rejects_are_a_source_error(tmp_path: Path) -> None:
    file = write(tmp_path / "flat.ts", "mpeg2video", WOVEN, (64, 2))
    with pytest.raises(SourceError, match=r"flat\.ts: FFmpeg does not deinterlace .* progressive$"):
        open_source(SourceSettings(kind="video", file=file))
