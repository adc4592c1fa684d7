"""The ways to send a video: the profiles and JPEG frame by frame, H.264 as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Final

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from benchmarks.bytes.quality import Quality, quality, whole_quality
from benchmarks.bytes.rows import JPEG, PROFILES_SENT, Row, h264
from benchmarks.harness.cpu_time import timed
from producers.sources.decoder import to_rgb
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import PROFILES, Encoding, encode_frame
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture

QUALITY: Final = 90
KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/bytes"))


def read(video: Path, most: int) -> list[av.VideoFrame]:
    """Return the frames of a video in its own colour format, at most `most` if that is not 0."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = []
        for frame in container.decode(video=0):
            frames.append(frame)
            if len(frames) == most:
                break
    return frames


def bytes_a_frame(video: Path) -> float:
    """Return the bytes per frame of the file itself."""
    with av.open(str(video)) as container:
        return video.stat().st_size / max(1, container.streams.video[0].frames)


def jpeg_of(picture: Picture) -> tuple[bytes, float]:
    """Return a JPEG and its CPU seconds. The colours are put into OpenCV's order before the clock starts."""
    blue_first = np.ascontiguousarray(picture[..., ::-1])
    return timed(lambda: cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def frame_by_frame(name: str, frames: list[av.VideoFrame], dropped: int, every: int) -> list[Row]:
    """Measure the profiles and JPEG, in turn on each frame."""
    ways = (*PROFILES_SENT, JPEG)
    sizes: dict[str, list[int]] = {way: [] for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[Quality]] = {way: [] for way in ways}
    for seq, frame in enumerate(frames):
        picture = to_rgb(frame)
        for profile in PROFILES_SENT:
            encoding = Encoding(dropped, 0.0, PROFILES[profile])
            message, took = timed(partial(encode_frame, KEY, 1, seq, seq, picture, encoding))
            times[profile].append(took)
            sizes[profile].append(len(message))
        data, took = jpeg_of(picture)
        sizes[JPEG].append(len(data))
        times[JPEG].append(took)
        if seq % every == 0:
            kept = kept_mask(KEY, 1, seq, picture.shape[0], picture.shape[1], dropped)
            found["raw"].append(quality(picture, picture * kept[..., None], kept))
            decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
            assert decoded is not None
            found[JPEG].append(whole_quality(picture, np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)))
    found["lossless"] = found["raw"]  # the same pixels arrive
    return [
        Row(
            name, way, None, len(frames), len(found[way]), fmean(sizes[way]), *Quality.mean(found[way]),
            1000 * fmean(times[way]), 1000 * fmean(times[JPEG]), 0,
        )
        for way in ways
    ]  # fmt: skip


def as_h264(name: str, frames: list[av.VideoFrame], preset: str, crf: int, every: int) -> Row:
    """Measure one thread of libx264 with a plain preset, on frames in the video's own colour format."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
    encoder.options = {"preset": preset, "crf": str(crf)}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    size, taken, jpeg_s, spent = 0, 0, [], 0.0
    held: int | None = None
    found: list[Quality] = []
    shown = 0

    def show(packets: Sequence[av.Packet[av.VideoStream] | None]) -> None:
        nonlocal shown
        for packet in packets:
            for picture in decoder.decode(packet):
                if shown % every == 0:
                    found.append(whole_quality(to_rgb(frames[shown]), to_rgb(picture)))
                shown += 1

    for number, frame in enumerate((*frames, None)):
        if frame is not None:
            frame.pts, frame.time_base, frame.pict_type = number, encoder.time_base, PictureType.NONE
            taken += 1
        packets, took = timed(partial(encoder.encode, frame))
        spent += took
        if packets and held is None:
            held = taken - 1
        size += sum(packet.size for packet in packets)
        if frame is not None and number % every == 0:
            jpeg_s.append(jpeg_of(to_rgb(frame))[1])
        show(packets)
    show([None])
    if shown != len(frames):
        raise RuntimeError(f"libx264: expected {len(frames)} frames back, got {shown}")
    return Row(
        name, h264(preset), crf, len(frames), len(found), size / len(frames), *Quality.mean(found),
        1000 * spent / len(frames), 1000 * fmean(jpeg_s), held or 0,
    )  # fmt: skip
