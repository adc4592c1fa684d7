"""The profile `video` at the camera: groups, places, probes, and messages with only kept pixels."""

from __future__ import annotations

import os
import sys
from typing import Any

import av
import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from producers.video import encoder as encoders
from producers.video import hardware
from producers.video.encoder import FFmpegEncoder, software_encoder, without_remarks
from producers.video.group import GroupEncoder, unmasked
from producers.video.hardware import hardware_encoder
from producers.video.video_settings import VideoSettings
from schemas.errors import BadSizeError, SourceError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.limits import LEAST_FRAMES_PER_SECOND, MAX_GROUP_FRAMES
from schemas.messages.access_unit import AccessUnit, Codec, open_unit
from schemas.messages.frame import Encoding, Truth, opened_pixels, parse_frame
from schemas.pixels.masks import kept_mask
from schemas.pixels.planes import Colour, Planes
from schemas.pointillist_pb2 import Frame
from schemas.runtime.priority import _scheduling

KEY = derive_camera_key(b"a fleet secret of thirty-two byte", CameraId("site/door"))
BOOT = 77
MASKED = Encoding(16)
HEIGHT, WIDTH = 72, 101


def scene(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Return a smooth picture (H, W, 3) that moves by one pixel with each number."""
    down, right = np.mgrid[:height, :width].astype(float)
    wave = [np.sin((right + number) / (9 + 4 * each)) * np.cos(down / (11 + each)) for each in range(3)]
    return (128 + 90 * np.stack(wave, axis=-1)).astype(np.uint8)


def messages(encoder: GroupEncoder, count: int, *, encoding: Encoding = MASKED, first: int = 0) -> list[Frame]:
    return [
        parse_frame(encoder.encode(scene(seq), BOOT, seq, 1000 + 40 * seq, encoding))
        for seq in range(first, first + count)
    ]


def unit(frame: Frame) -> AccessUnit:
    return open_unit(opened_pixels(KEY, frame))


def decoded(units: list[AccessUnit]) -> list[NDArray[np.uint8]]:
    """Return the luma of each unit of a chain, decoded by FFmpeg."""
    decoder = av.CodecContext.create({Codec.H264: "h264", Codec.AV1: "libdav1d"}[units[0].codec], "r")
    decoder.thread_count = 1
    found = []
    for each in units:
        (frame,) = decoder.decode(av.Packet(bytes(each.data)))  # type: ignore[attr-defined]  # a video decoder
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        found.append(rows[: plane.height, : plane.width].copy())
    return found


def places(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return the group and the place of each frame."""
    return [(frame.seq - frame.key_distance, frame.place) for frame in frames]


@pytest.mark.parametrize(("codec", "crf", "used"), [("h264", None, 22.75), ("h264", 0, 0), ("av1", None, 28)])
def test_software_for_h264_encodes_a_quarter_finer_than_the_chosen_factor(
    monkeypatch: pytest.MonkeyPatch, codec: Any, crf: int | None, used: float
) -> None:
    found: list[float] = []

    def record(*arguments: Any) -> Any:
        found.append(arguments[4])
        return software_encoder(*arguments)

    monkeypatch.setattr(encoders, "software_encoder", record)
    messages(GroupEncoder(KEY, VideoSettings(codec=codec, crf=crf)), 1)
    assert found == [used]


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_frames_decode_to_the_kept_pixels_in_the_order_of_their_places(codec: Any) -> None:
    frames = messages(GroupEncoder(KEY, VideoSettings(codec=codec, crf=10)), 5)
    assert places(frames) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    kept = kept_mask(KEY, BOOT, 0, HEIGHT, WIDTH, 16)
    for seq, luma in enumerate(decoded([unit(frame) for frame in frames])):
        red, green, blue = (scene(seq)[..., each].astype(int) for each in range(3))
        wanted = (77 * red + 150 * green + 29 * blue + 128) // 256
        assert luma.shape == (HEIGHT, WIDTH + 1)  # codecs require even sides
        assert np.abs(luma[:, :WIDTH] - wanted)[kept].mean() < 2


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([6, 16, 40]), st.integers(0, 2**16), st.booleans(), st.sampled_from(["h264", "av1"]))
def test_pictures_that_differ_only_in_dropped_pixels_have_equal_messages(
    dropped: int, seed: int, planar: bool, codec: Any
) -> None:
    random = np.random.default_rng(seed)
    one, other = (GroupEncoder(KEY, VideoSettings(codec=codec)) for _ in range(2))
    kept = kept_mask(KEY, BOOT, 3, HEIGHT, WIDTH, dropped)
    cells = np.pad(kept, ((0, HEIGHT % 2), (0, WIDTH % 2))).reshape(36, 2, 51, 2).any(axis=(1, 3))
    for seq in range(3, 6):
        picture = scene(seq)
        changed = picture.copy()
        changed[~kept] = random.integers(0, 256, (int((~kept).sum()), 3), np.uint8)
        pair: list[Any] = [picture, changed]
        if planar:
            chroma = [random.integers(100, 156, (36, 51), np.uint8) for _ in range(4)]
            for first, second in zip(chroma[:2], chroma[2:], strict=True):
                second[cells] = first[cells]
            pair = [Planes(picture[..., 0], chroma[0], chroma[1]), Planes(changed[..., 0], chroma[2], chroma[3])]
        sent = [
            encoder.encode(each, BOOT, seq, 1000 + seq, Encoding(dropped))
            for encoder, each in zip((one, other), pair, strict=True)
        ]
        assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("chosen", "first"),
    [
        (VideoSettings(group_frames=3), [0, 0, 0, 3, 3, 3, 6]),
        (VideoSettings(group_s=0.08), [0, 0, 2, 2, 4, 4, 6]),
        (VideoSettings(group_frames=1), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_group_ends_by_its_length(chosen: VideoSettings, first: list[int]) -> None:
    frames = messages(GroupEncoder(KEY, chosen), 7)
    assert [group for group, _ in places(frames)] == first


def test_a_group_ends_on_request_and_with_other_settings() -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 2)
    assert encoder.group == (BOOT, 0)
    encoder.end()
    assert places(messages(encoder, 2, first=2)) == [(2, 0), (2, 1)]
    assert places(messages(encoder, 2, first=4, encoding=Encoding(20))) == [(4, 0), (4, 1)]
    small = parse_frame(encoder.encode(scene(6, 64, 64), BOOT, 6, 1240, Encoding(20)))
    assert (small.place, small.key_distance, small.width) == (0, 0, 64)
    other = parse_frame(encoder.encode(scene(0, 64, 64), BOOT + 1, 0, 1280, Encoding(20)))
    assert (other.place, other.key_distance) == (0, 0)


def test_a_group_ends_when_the_clock_is_set_back() -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 2)
    assert parse_frame(encoder.encode(scene(2), BOOT, 2, 5, MASKED)).key_distance == 0


def test_a_change_of_scene_starts_a_group() -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 3)
    assert parse_frame(encoder.encode(255 - scene(3), BOOT, 3, 1120, MASKED)).place == 0
    assert parse_frame(encoder.encode(255 - scene(4), BOOT, 4, 1160, MASKED)).place == 1


def grain(number: int, levels: int, channels: int = 3) -> NDArray[np.uint8]:
    """Return a picture (144, 176, C) of noise; numbers differ by at most this many levels."""
    picture: NDArray[np.uint8] = np.random.default_rng(0).integers(8, 248, (144, 176, channels), np.uint8)
    picture += np.random.default_rng(number).integers(0, levels + 1, (144, 176, 1), np.uint8)
    return picture


def changes(encoder: GroupEncoder, pictures: list[NDArray[np.uint8]], encoding: Encoding = MASKED) -> list[Any]:
    """Return the changes of frames that are 10 s apart, so that each starts a group."""
    frames = [parse_frame(encoder.encode(each, BOOT, seq, 10_000 * seq, encoding)) for seq, each in enumerate(pictures)]
    assert {frame.place for frame in frames} == {0}
    return [unit(frame).change for frame in frames]


@pytest.mark.parametrize("dropped", [0, 16, 40])
def test_a_first_frame_carries_the_change_of_the_pixels_that_were_sent_twice(dropped: int) -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    assert changes(encoder, [grain(0, 0)] * 4, Encoding(dropped)) == [None, 0, 0, 0]
    noisy = changes(encoder, [grain(seq, 1) for seq in range(4)], Encoding(dropped))
    assert all(0.2 < change < 0.8 for change in noisy)


def test_a_first_frame_carries_no_change_after_a_cut_another_format_or_with_few_repeated_pixels() -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    assert changes(encoder, [grain(0, 0), grain(0, 0, 1), grain(0, 0), grain(0, 0)[:136]]) == [None] * 4
    luma, chroma = grain(0, 0)[..., 0], np.full((72, 88), 128, np.uint8)
    limited = Planes(luma, chroma, chroma, Colour.BT709_LIMITED)
    encoded = [
        encoder.encode(each, BOOT, seq, 10_000 * seq, MASKED)
        for seq, each in enumerate([limited._replace(colour=Colour.BT601_LIMITED), limited, limited])
    ]
    assert [unit(parse_frame(each)).change for each in encoded] == [None, None, 0]
    assert changes(GroupEncoder(KEY, VideoSettings()), [scene(0)[:64, :64]] * 4, Encoding(56)) == [None] * 4
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 2)
    cut = parse_frame(encoder.encode(255 - scene(2), BOOT, 2, 1080, MASKED))
    assert (cut.place, unit(cut).change) == (0, None)


def test_the_change_of_a_first_frame_depends_on_kept_pixels_only() -> None:
    pictures = [grain(seq, 1) for seq in range(6)]
    changed = []
    for seq, picture in enumerate(pictures):
        dropped = ~kept_mask(KEY, BOOT, seq, 144, 176, 16)
        changed.append(picture.copy())
        changed[-1][dropped] = np.random.default_rng(seq).integers(0, 256, (int(dropped.sum()), 3), np.uint8)
    one, other = (changes(GroupEncoder(KEY, VideoSettings()), each) for each in (pictures, changed))
    assert one == other
    assert None not in one[1:]


def test_a_probe_is_complete_and_not_part_of_the_chain() -> None:
    encoder = GroupEncoder(KEY, VideoSettings(crf=10))
    frames = messages(encoder, 12, encoding=Encoding(16, 0.25))
    probes = [frame for frame in frames if frame.whole]
    assert len(probes) == 3
    chain = [frame for frame in frames if not frame.whole]
    assert [frame.place for frame in chain] == list(range(9))
    assert len(decoded([unit(frame) for frame in chain])) == 9
    for probe in probes:
        assert (probe.place, probe.key_distance) == (0, 0)
        (luma,) = decoded([unit(probe)])
        red, green, blue = (scene(probe.seq)[..., each].astype(int) for each in range(3))
        assert np.abs(luma[:, :WIDTH] - (77 * red + 150 * green + 29 * blue + 128) // 256).max() <= 8


def test_a_grey_picture_has_one_channel() -> None:
    frame = parse_frame(GroupEncoder(KEY, VideoSettings()).encode(scene(0)[..., :1], BOOT, 0, 0, MASKED, Truth(3)))
    assert frame.channels == 1
    assert Truth.from_wire(frame.truth) == Truth(3)


def test_small_pictures_are_rejected() -> None:
    with pytest.raises(BadSizeError, match="expected sides from 64 on"):
        GroupEncoder(KEY, VideoSettings()).encode(scene(0, 32, 32), BOOT, 0, 0, MASKED)


def test_an_encoder_that_fails_ends_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 2)
    with monkeypatch.context() as patched:
        patched.setattr(encoders.FFmpegEncoder, "encode", _broken)
        with pytest.raises(SourceError, match="encoder failed"):
            encoder.encode(scene(2), BOOT, 2, 1080, MASKED)
    assert places(messages(encoder, 1, first=2)) == [(2, 0)]


def test_a_picture_that_the_codec_makes_too_large_ends_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = GroupEncoder(KEY, VideoSettings())
    messages(encoder, 2)
    for shown in (scene(2), 255 - scene(2)):  # a later frame of the group, and a key frame
        with monkeypatch.context() as patched:
            patched.setattr("schemas.messages.access_unit.MAX_FRAME_BYTES", 10)
            with pytest.raises(BadSizeError, match="expected at most 10 bytes"):
                encoder.encode(shown, BOOT, 2, 1080, MASKED)
        assert encoder.group is None
    assert places(messages(encoder, 2, first=2)) == [(2, 0), (2, 1)]


def _broken(*_: object) -> bytes:
    raise SourceError("encoder failed")


def test_the_limit_of_bytes_holds_on_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 96, 128), np.uint8)
    sizes = {}
    for cap in (None, 40_000):
        encoder = software_encoder(Codec.H264, 96, 128, 25.0, 20, cap)
        sizes[cap] = sum(len(encoder.encode(Planes(each, None, None))) for each in noise)
    # Two seconds, and a buffer of one.
    assert sizes[40_000] < 3 * 40_000 < sizes[None]


def test_the_limit_of_bytes_holds_while_the_scene_changes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 96, 128, 3), np.uint8)
    encoder = GroupEncoder(KEY, VideoSettings(max_bytes_per_second=20_000), 25.0)
    frames = [parse_frame(encoder.encode(each, BOOT, seq, 40 * seq, MASKED)) for seq, each in enumerate(noise)]
    # Two seconds, and a buffer of one.
    assert sum(len(unit(frame).data) for frame in frames) < 3 * 20_000
    assert places(frames) == [(0, place) for place in range(50)]


@pytest.mark.parametrize(
    ("known", "rates"),
    [(30.0, (30,)), (0.0, (30,)), (0.0, (60,)), (0.0, (5, 25))],
    ids=["known", "faster-than-usual", "twice-as-fast", "faster-at-last"],
)
def test_the_limit_of_bytes_holds_over_groups_at_the_rate_of_the_stream(known: float, rates: tuple[int, ...]) -> None:
    limit, seconds = 20_000, 8
    noise = np.random.default_rng(0).integers(0, 256, (7, 96, 128, 3), np.uint8)
    encoder = GroupEncoder(KEY, VideoSettings(max_bytes_per_second=limit), known)
    captured_ms = np.cumsum([1000 / rate for rate in rates for _ in range(rate * seconds)])
    sent = np.array(
        [len(encoder.encode(noise[seq % 7], BOOT, seq, round(at), MASKED)) for seq, at in enumerate(captured_ms)]
    )
    for start in range(len(rates) * seconds):
        for end in range(start + 1, len(rates) * seconds + 1):
            within = (captured_ms > 1000 * start) & (captured_ms <= 1000 * end)
            assert sent[within].sum() < (end - start + 2) * limit
    assert sent[captured_ms > 1000 * (len(rates) - 1) * seconds].sum() > 0.8 * seconds * limit


def test_a_frame_at_the_lowest_rate_may_have_the_bytes_of_a_second() -> None:
    chosen = VideoSettings(max_bytes_per_second=4096)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    messages = [
        GroupEncoder(KEY, chosen, rate).encode(noise, BOOT, 0, 0, MASKED) for rate in (LEAST_FRAMES_PER_SECOND, 0.01)
    ]
    assert len(messages[0]) == pytest.approx(len(messages[1]), rel=0.1)


def test_missing_hardware_is_reported_and_software_takes_over() -> None:
    found, reason = hardware_encoder("v4l2m2m", HEIGHT, WIDTH, 25.0, 20)
    if found is None:
        assert "h264_v4l2m2m" in reason
    frames = messages(GroupEncoder(KEY, VideoSettings(hardware="auto")), 2)
    assert len(decoded([unit(frame) for frame in frames])) == 2


def test_an_encoder_of_interleaved_chroma_gets_the_same_samples() -> None:
    options, units = {"tune": "zerolatency", "crf": "20"}, {}
    for layout in ("yuv420p", "nv12"):
        encoder = FFmpegEncoder("libx264", Codec.H264, HEIGHT, WIDTH, 25.0, options, layout)
        units[layout] = [encoder.encode(unmasked(scene(number))) for number in range(2)]
    assert units["nv12"] == units["yuv420p"]


@pytest.mark.parametrize(("hold", "opened", "logged"), [(None, 3, 0), (8000, 0, 1)])
def test_software_encodes_instead_of_hardware_if_the_bytes_a_second_are_limited(
    monkeypatch: pytest.MonkeyPatch, hold: int | None, opened: int, logged: int
) -> None:
    found: list[str] = []

    def opens(kind: str, height: int, width: int, rate: float, crf: int) -> Any:
        found.append(kind)
        return software_encoder(Codec.H264, height, width, rate, crf)

    monkeypatch.setattr(hardware, "_opened", opens)
    monkeypatch.setattr(hardware, "_PROVEN", set())
    chosen = VideoSettings(hardware="nvenc", max_bytes_per_second=hold, group_frames=2)
    with structlog.testing.capture_logs() as logs:
        messages(GroupEncoder(KEY, chosen), 4)
    assert len(found) == opened
    assert ["max_bytes_per_second" in each["reason"] for each in logs] == [True] * logged


def test_supplemental_information_is_removed() -> None:
    unit_ = b"\0\0\0\1\x67abc\0\0\0\1\x68de\0\0\1\x06remarks\0\0\1\x65picture\0\1"
    assert without_remarks(unit_) == b"\0\0\1\x67abc\0\0\1\x68de\0\0\1\x65picture\0\1"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no policies for threads")
def test_av1_gives_no_thread_of_the_process_real_time_priority() -> None:
    # Only root may set real-time priorities: run by another user, this test cannot fail.
    before = os.sched_getscheduler(0)
    encoder = software_encoder(Codec.AV1, 64, 64, 10.0, 28)
    try:
        assert {policy for policy, _ in _scheduling().values()} == {before}
    finally:
        encoder.close()


def test_the_largest_group_setting_is_the_processors_limit() -> None:
    assert VideoSettings(group_frames=MAX_GROUP_FRAMES).group_frames == MAX_GROUP_FRAMES
    with pytest.raises(ValidationError):
        VideoSettings(group_frames=MAX_GROUP_FRAMES + 1)


@pytest.mark.parametrize("hold", [None, 8000])
def test_a_commanded_rate_starts_a_group_with_the_quality_and_limit_of_that_rate(hold: int | None) -> None:
    chosen = VideoSettings(max_bytes_per_second=hold)
    slow, usual = (GroupEncoder(KEY, chosen, rate) for rate in (0.5, 25.0))
    messages(slow, 2)
    slow.set_rate(25.0)
    frames = messages(slow, 40, first=2)
    assert places(frames)[:2] == [(2, 0), (2, 1)]
    wanted = sum(len(each.pixels) for each in messages(usual, 40, first=2))
    assert sum(len(each.pixels) for each in frames) == pytest.approx(wanted, rel=0.2)
    slow.set_rate(25.0)
    assert places(messages(slow, 1, first=42)) == [(2, 40)]


@pytest.mark.parametrize("rate", [1000.0, 241.0, 1 / 3600])
def test_av1_encodes_at_every_allowed_rate(rate: float) -> None:
    frames = messages(GroupEncoder(KEY, VideoSettings(codec="av1"), rate), 2)
    assert places(frames) == [(0, 0), (0, 1)]
