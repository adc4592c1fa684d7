"""The profile `video` from a camera's source to its spool: planes, key requests, and shedding of whole tails."""

from __future__ import annotations

from math import ceil, floor
from pathlib import Path

import av
import numpy as np
import pytest
import structlog
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks.harness.videos import write_video
from producers.camera.camera_settings import CameraOptions, CameraSettings
from producers.camera.sealing import FrameSealer
from producers.sources.decoder import framed, to_planes, to_rgb
from producers.sources.framing import Framing
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.spool import Spool, SpoolLimits
from producers.video.comparison import WAYS, Comparison
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas import metrics
from schemas.errors import SourceError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import Encoding, group_of, parse_frame
from schemas.pixels.planes import Colour, Planes, to_picture
from schemas.pointillist_pb2 import LOSSLESS, RAW, VIDEO
from tests.producers.fleet_rig import capturing, offline_camera
from tests.waiting import until

CAMERA = CameraId("site/door")
KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA)
MASKED = Encoding(16, 0.0, VIDEO)


def smooth() -> NDArray[np.uint8]:
    down, right = np.mgrid[:128, :160]
    luma = 128 + 60 * np.sin(right * np.pi / 20) + 40 * np.cos(down / 9)
    return np.stack([luma, 255 - luma, luma / 2], axis=2).clip(0, 255).astype(np.uint8)


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(90, 120, (64, 96, 3), np.uint8)


class Device:
    """A camera's spool and its sealing."""

    def __init__(self, folder: Path, most_bytes: int = 256 * 2**20, **chosen: int) -> None:
        self.spool = Spool(folder, CAMERA, SpoolLimits(max_bytes=most_bytes))
        groups = GroupEncoder(KEY, VideoSettings(**chosen))  # type: ignore[arg-type]  # whole numbers
        self.sealing = FrameSealer(KEY, self.spool, self._append, groups)
        self.spool.on_shed = self.sealing.shed
        self.sent: dict[int, tuple[int, int]] = {}
        """Group and place of each frame."""

    def _append(self, payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> None:
        frame = parse_frame(payload)
        self.sent[self.spool.append(payload, position, captured_ms, raw_bytes)] = (
            frame.seq - frame.key_distance,
            frame.place,
        )

    def send(self, count: int = 1, encoding: Encoding = MASKED) -> None:
        for _ in range(count):
            seq = self.spool.current.next
            self.sealing.seal(noise(seq), 1000 + 40 * seq, seq, encoding)
            self.sealing.append()

    def waiting(self) -> list[int]:
        boot = self.spool.current.boot_id
        return [seq for seq in range(self.spool.current.next) if self.spool.get((boot, seq)) is not None]


def test_a_key_request_for_the_open_group_starts_another_group(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.send(3)
    boot = device.spool.current.boot_id
    for wanted in (None, (boot, 1), (boot + 1, 0)):
        device.sealing.request_key(wanted)
        device.send()
    device.sealing.request_key((boot, 0))
    device.send(2)
    assert [device.sent[seq] for seq in range(8)] == [(0, place) for place in range(6)] + [(6, 0), (6, 1)]
    device.spool.close()


def test_a_frame_of_another_profile_ends_the_group(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.send(2)
    device.send(1, Encoding(16, 0.0, RAW))
    device.send(2)
    assert [device.sent[seq] for seq in (3, 4)] == [(3, 0), (3, 1)]
    device.spool.close()


@pytest.mark.parametrize("length", [7, 1000])
def test_a_full_spool_sheds_complete_tails_of_groups(tmp_path: Path, length: int) -> None:
    device = Device(tmp_path, 64 * 2**10, group_frames=length)
    device.send(60)
    waiting = device.waiting()
    assert waiting
    assert len(waiting) < 60
    # All earlier frames of its group wait in the spool with each waiting frame.
    for seq in waiting:
        group, place = device.sent[seq]
        assert {(group, each) for each in range(place)} <= {device.sent[each] for each in waiting}
    shed = device.spool.current.shed
    assert sorted([*waiting, *shed]) == list(range(60))
    device.spool.close()


def test_probes_stay_when_the_frames_of_their_group_are_shed(tmp_path: Path) -> None:
    device = Device(tmp_path, 64 * 2**10, group_frames=1000)
    device.send(60, Encoding(16, 0.2, VIDEO))
    waiting, boot_id = device.waiting(), device.spool.current.boot_id
    kept_segments = range(waiting[0], 60)
    assert set(kept_segments) & set(device.spool.current.shed)
    probes = {seq for seq in kept_segments if KEY.is_probe(boot_id, seq, 0.2)}
    assert probes
    assert probes <= set(waiting)
    device.spool.close()


def test_raw_and_lossless_frames_are_groups_of_one(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.send(2, Encoding(16, 0.0, LOSSLESS))
    boot = device.spool.current.boot_id
    frame = device.spool.get((boot, 1))
    assert frame is not None
    assert group_of(device.spool.read(frame)) == 1
    assert group_of(b"no message\xff") is None
    device.spool.close()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Write a file of ten frames in 4:2:0."""
    return write_video(tmp_path / "film.mp4", map(noise, range(10)))


def test_a_file_source_yields_the_planes_of_its_decoder(film: Path) -> None:
    settings = SourceSettings(kind="video", file=film)
    source = open_source(settings, planar=True)
    captured = source.read()
    source.close()
    assert captured is not None
    assert captured.planes is not None
    assert captured.planes.shape == (64, 96, 3)
    assert captured.planes.colour is Colour.BT601_LIMITED
    assert np.array_equal(captured.picture[..., 0], captured.planes.luma)
    with av.open(str(film)) as container:
        frame = next(container.decode(video=0))
        expected = to_rgb(frame)
        assert to_planes(frame) is not None
    assert np.abs(to_picture(captured.planes).astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("matrix", "colour"),
    [(1, Colour.BT709_LIMITED), (2, Colour.BT601_LIMITED), (5, Colour.BT601_LIMITED), (6, Colour.BT601_LIMITED),
     (4, None), (7, None), (8, None), (9, None), (10, None), (14, None)],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["yuv420p", "nv12"])
def test_a_stream_with_another_colour_matrix_yields_pixels(matrix: int, colour: Colour | None, layout: str) -> None:
    frame = av.VideoFrame.from_ndarray(noise(0), format="rgb24").reformat(format=layout)
    frame.colorspace = matrix
    planes = to_planes(frame)
    assert (planes and planes.colour) == colour
    picture, sent = framed(frame, Framing.of(SourceSettings(kind="video", file=Path("film.mp4"))), planar=True)
    assert (sent is None) == (colour is None)
    assert sent is not None or np.array_equal(picture, to_rgb(frame))


def test_a_grey_stream_stays_grey_with_every_framing() -> None:
    grey = noise(0)[..., :1]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey[..., 0]), format="gray")
    picture, planes = framed(frame, Framing(), planar=True)
    assert planes is not None
    assert (planes.blue, planes.red, planes.colour) == (None, None, Colour.BT601_FULL)
    assert np.array_equal(planes.luma, picture[..., 0])
    assert np.array_equal(picture, grey)
    assert np.array_equal(framed(frame, Framing(), planar=False)[0], grey)
    assert np.array_equal(framed(frame, Framing(channels=3), planar=True)[0], to_rgb(frame))
    turned, _ = framed(frame, Framing(rotate=90), planar=True)
    assert turned.shape == (grey.shape[1], grey.shape[0], 1)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("layout", ["yuv420p", "nv12"])
def test_no_colour_from_inside_a_privacy_region_reaches_the_pixels_beside_it(
    layout: str, size: tuple[int, int], rotate: int
) -> None:
    height, width = size
    framing = Framing(rotate=rotate, privacy=((0.13, 0.21, 0.3, 0.4),))
    frame = av.VideoFrame(width, height, layout)
    step = 2 if layout == "nv12" else 1  # bytes from one blue sample to the next
    for plane in frame.planes:
        plane.update(np.random.default_rng(plane.height).integers(90, 120, plane.buffer_size, np.uint8).tobytes())
    picture, _ = framed(frame, framing, planar=False)
    rows, columns = picture.shape[:2]
    wanted = np.zeros((rows, columns), np.bool_)
    wanted[floor(0.21 * rows) : ceil(0.61 * rows), floor(0.13 * columns) : ceil(0.43 * columns)] = True
    wanted = np.rot90(wanted, rotate // 90)  # in the source's picture
    changes = 0
    for plane in frame.planes[1:]:
        samples = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size).copy()
        for row, column in np.ndindex(-(-height // 2), -(-width // 2)):
            if wanted[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].any():
                samples[row, step * column : step * (column + 1)] ^= 128
                changes += 1
        plane.update(samples.tobytes())
    assert changes > 0
    assert np.array_equal(framed(frame, framing, planar=False)[0], picture)


def test_a_cropped_source_yields_pixels(film: Path) -> None:
    source = open_source(SourceSettings(kind="video", file=film, size=(64, 64)), planar=True)
    captured = source.read()
    source.close()
    assert captured is not None
    assert captured.planes is None
    assert captured.picture.shape == (64, 64, 3)


async def test_a_camera_with_too_large_pictures_names_the_settings_that_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path
) -> None:
    monkeypatch.setattr("schemas.messages.frame.MAX_FRAME_BYTES", 96 * 64)
    source = SourceSettings(kind="video", file=film)
    settings = CameraSettings(camera_id=CAMERA, fps=50.0, profile="video", source=source)
    async with capturing(offline_camera(settings, KEY, tmp_path)) as camera:
        await until(lambda: camera.trouble != "", "an error of the source")
        assert camera.trouble.endswith("got 64x96x3; set a size or a region")


def test_planes_are_sent_as_pixels_with_the_profile_raw(tmp_path: Path) -> None:
    device = Device(tmp_path)
    luma, chroma = noise(0)[..., 0], noise(1)[:32, :48, 0]
    device.sealing.seal(Planes(luma, chroma, chroma), 1000, 0, Encoding(16))
    device.sealing.append()
    boot = device.spool.current.boot_id
    frame = device.spool.get((boot, 0))
    assert frame is not None
    sent = parse_frame(device.spool.read(frame))
    assert (sent.profile, sent.width, sent.channels, len(sent.pixels)) == (RAW, 96, 3, 64 * 96 * 3 * 3 // 4)
    device.spool.close()


def test_the_profile_is_a_setting() -> None:
    options = CameraOptions.model_validate({"profile": "video", "video": {"codec": "av1", "crf": 30}})
    assert options.encoding.profile == VIDEO
    assert options.video.rate_factor == 30


def test_one_frame_in_a_hundred_is_compared_with_other_encodings() -> None:
    compared = metrics.CAMERA_COMPARED.on(registry := CollectorRegistry())
    groups, comparison = GroupEncoder(KEY, VideoSettings()), Comparison(VideoSettings(), compared)
    for seq in range(201):
        picture = np.roll(smooth(), seq, axis=1)
        comparison.add(picture, seq, groups.encode(picture, 1, seq, 40 * seq, MASKED), 0.0)
        sent, raw, jpeg, codec = (
            registry.get_sample_value("pointillist_camera_compared_bytes_total", {"way": way}) or 0.0 for way in WAYS
        )
        assert raw == (seq // 100 + 1) * picture.nbytes
        assert 0.5 * codec < sent < 2 * codec < jpeg + codec < raw
    groups.end()


async def test_a_failed_comparison_costs_neither_frames_nor_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SourceError("encoder failed")

    monkeypatch.setattr(Comparison, "add", fail)
    settings = CameraSettings(camera_id=CAMERA, fps=50.0, source=SourceSettings(kind="scene"), measure_codec=True)
    with structlog.testing.capture_logs() as logs:
        async with capturing(offline_camera(settings, KEY, tmp_path)) as camera:
            await until(lambda: camera.spool.current.next > 3, "four frames")
            assert camera.trouble == ""
    assert [each["event"] for each in logs if "encoder failed" in each.get("error", "")] == ["comparison_ended"]


@pytest.mark.parametrize("rate", [1000.0, 1 / 3600])
def test_av1_frames_are_compared_at_every_allowed_rate(rate: float) -> None:
    compared = metrics.CAMERA_COMPARED.on(registry := CollectorRegistry())
    chosen = VideoSettings(codec="av1")
    groups, comparison = GroupEncoder(KEY, chosen, rate), Comparison(chosen, compared)
    comparison.add(smooth(), 0, groups.encode(smooth(), 1, 0, 0, MASKED), rate)
    groups.end()
    assert (registry.get_sample_value("pointillist_camera_compared_bytes_total", {"way": "codec"}) or 0.0) > 0
