"""The savings of the profile `temporal` on fixed cameras, and the quality of its pictures.

    python -m benchmarks.temporal --json temporal.json

Every frame of each `--video` (by default those under $POINTILLIST_DATA/video) passes through encoder and decoder. Bytes
are those of the pixels, relative to width x height x channels. Every `--every`-th frame is also encoded as JPEG, for
its bytes and its CPU time on one thread. These frames are rebuilt as they are displayed and compared with the camera's.
CPU time is the median over frames, mask computation included. `--rms` tries other settings of `unchanged_rms`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import cv2
import numpy as np
import torch

from processors.pipeline import usual_denoise
from processors.stages.denoise import denoise
from processors.stages.reconstruct import Mode, reconstruct
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.identity import CameraId
from schemas.keys import derive_camera_key
from schemas.limits import dropped_per_block
from schemas.pixels import lossless
from schemas.pixels.masks import Mask, blocks_of, kept_mask
from schemas.pixels.packing import Picture
from schemas.pixels.temporal import KeyPicture, unpack_delta
from schemas.pixels.temporal_encoder import UNCHANGED_RMS, Coded, TemporalEncoder

QUALITY: Final = 90
KEY: Final = derive_camera_key(b"a secret for measuring", CameraId("bench/temporal"))


def pictures(video: Path, most: int) -> Iterator[Picture]:
    """Yield the frames of a video, at most `most` if that is not 0."""
    source = open_source(SourceSettings(kind="video", file=video))
    count = 0
    while (captured := source.read()) is not None and (not most or count < most):
        yield captured.picture
        count += 1
    source.close()


def cpu_s() -> float:
    """Return the CPU seconds of this thread so far."""
    return time.thread_time_ns() / 1e9


def jpeg(picture: Picture) -> tuple[int, float]:
    """Return the bytes and CPU seconds of a JPEG. The colours are put into OpenCV's order before the clock starts."""
    blue_first = np.ascontiguousarray(picture[..., ::-1])
    start = cpu_s()
    data = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return len(data), cpu_s() - start


@torch.inference_mode()
def psnr_db(pixels: Picture, kept: Mask, picture: Picture, mode: Mode) -> float:
    """Return the PSNR of the displayed picture, rebuilt from these known pixels, against the camera's."""
    settings = usual_denoise(mode)
    frames = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    rebuilt = reconstruct(frames, torch.from_numpy(np.ascontiguousarray(kept))[None, None], mode)
    shown = denoise(rebuilt, settings.method, settings.sigma)[0].permute(1, 2, 0).numpy() * 255
    error = float(np.mean((shown.round() - picture.astype(np.float32)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))


def decoded(coded: Coded, kept: Mask, channels: int, seq: int, key: KeyPicture | None) -> KeyPicture:
    """Return the receiver's pixels of a frame."""
    if coded.key_distance:
        assert key is not None
        pixels, known = unpack_delta(coded.data, kept, key)
        return KeyPicture(1, seq, 0, pixels, known)
    pixels = np.zeros((*kept.shape, channels), dtype=np.uint8)
    pixels[kept] = lossless.decode(coded.data, kept, channels)
    return KeyPicture(1, seq, 0, pixels, kept)


def measure(video: Path, dropped: int, rms: float, options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one video."""
    encoder = TemporalEncoder(rms)
    key: KeyPicture | None = None
    sizes: list[float] = []
    times: list[float] = []
    shares: list[float] = []
    causes: Counter[str] = Counter()
    jpegs: list[tuple[float, float]] = []
    quality: list[float] = []
    for seq, picture in enumerate(pictures(video, options.frames)):
        height, width, channels = picture.shape
        start = cpu_s()
        kept = kept_mask(KEY, 1, seq, height, width, dropped)
        coded = encoder.encode(picture, kept, 1, seq, seq, dropped)
        times.append(cpu_s() - start)
        encoder.published()
        sizes.append(len(coded.data) / picture.size)
        if coded.cause is not None:
            causes[coded.cause.value] += 1
            key = decoded(coded, kept, channels, seq, None)
        else:
            shares.append(coded.blocks_sent / coded.blocks)
        if seq % options.every == 0:
            size, took = jpeg(picture)
            jpegs.append((size / picture.size, took))
            seen = decoded(coded, kept, channels, seq, key)
            quality.append(psnr_db(seen.pixels, seen.kept, picture, options.mode))
    median_s = statistics.median(times)
    jpeg_s = statistics.median(took for _, took in jpegs)
    return {
        "frames": len(sizes),
        "blocks_a_frame": int(np.prod(blocks_of(height, width))),
        "bytes_over_raw": statistics.fmean(sizes),
        "jpeg_bytes_over_raw": statistics.fmean(size for size, _ in jpegs),
        "psnr_db": statistics.fmean(quality),
        "lowest_psnr_db": min(quality),
        "key_frames": dict(causes),
        "changed_share_of_blocks": statistics.fmean(shares) if shares else 0.0,
        "cpu_s": median_s,
        "jpeg_cpu_s": jpeg_s,
        "cpu_over_jpeg": median_s / jpeg_s,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--video", type=Path, nargs="*", help="video files")
    parser.add_argument("--frames", type=int, default=0, help="most frames of each video (0: all)")
    parser.add_argument(
        "--every", type=int, default=10, help="compare every N-th frame with JPEG and the camera's picture"
    )
    parser.add_argument("--drop", type=float, default=0.25)
    parser.add_argument(
        "--rms", type=float, nargs="+", default=[UNCHANGED_RMS], help="values of unchanged_rms; the file holds the last"
    )
    parser.add_argument(
        "--mode", choices=get_args(Mode), default="default", help="reconstruction of the displayed pictures"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    folder = os.environ.get("POINTILLIST_DATA")
    videos = options.video or (sorted(Path(folder, "video").glob("*.mp4")) if folder else [])
    if not videos:
        parser.error("--video: expected video files, got none. Set it, or put videos under $POINTILLIST_DATA/video.")
    dropped = dropped_per_block(options.drop)
    kept_mask(KEY, 1, 0, 8, 8, dropped)  # builds the codebook once
    report: dict[str, object] = {}
    for rms in options.rms:
        by_video = {video.name: measure(video, dropped, rms, options) for video in videos}
        means = {
            name: statistics.fmean(float(str(figures[name])) for figures in by_video.values())
            for name in ("bytes_over_raw", "jpeg_bytes_over_raw", "psnr_db", "cpu_over_jpeg")
        }
        report = {
            **means,
            "unchanged_rms": rms,
            "drop_ratio": options.drop,
            "mode": options.mode,
            "every": options.every,
            "jpeg_quality": QUALITY,
            "by_video": by_video,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        }
        print(json.dumps(report, indent=2), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
