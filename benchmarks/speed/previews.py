"""The CPU cost of preview pictures in a processor: `python -m benchmarks.speed.previews [--rounds N]`.

Frames pass one at a time through the shipped bundle on one thread. They come from each video in $POINTILLIST_DATA, or
from a scene if there is none. The figures are bytes and CPU microseconds per frame beyond the cost of its verdict: of
the device's thread, and of the thread that encodes JPEGs. For each camera, a rebuilt picture accompanies a verdict once
a second, and a picture as sent once in five seconds (ADR 41). Figures are medians of the rounds, which take all kinds
in turn.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Final

import torch
from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from benchmarks.speed.camera_cost import runs
from benchmarks.speed.stages import cpu_seconds
from processors.arrivals.job import FrameJob, Wanted, open_record
from processors.bundle import load_bundle, shipped_bundle
from processors.device.batch_executor import BatchExecutor
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.results.preview import HOLES_QUALITY, preview_jpeg
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, encode_frame
from schemas.pixels.packing import Picture

SIZES: Final = ((768, 432), (32, 32))
"""Width and height."""
DROPPED: Final = 16


def taken(keys: KeyRing, picture: Picture, seq: int) -> FrameJob:
    """Return a frame of the picture as it arrives from Kafka."""
    key = keys.current(CameraId("bench/cam"))
    value, name = encode_frame(key, 1, seq, 0, picture, Encoding(DROPPED)), key.camera_id.encode()
    record = ConsumerRecord("frames", 0, seq, 0, 0, name, value, None, len(name), len(value), ())
    return open_record(record, keys)


def encoded(pictures: list[Picture], most: int) -> list[bytes]:
    """Return each picture as JPEG."""
    return [preview_jpeg(each, most) for each in pictures]


def rows(size: tuple[int, int], rounds: int) -> list[str]:
    """Return a row for each kind of picture."""
    keys, bundle = KeyRing(bytes(range(32))), load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    executor = BatchExecutor(Pipeline(bundle), ProcessorMetrics(CollectorRegistry()))
    frames = [taken(keys, pictures[0], seq) for seq, pictures in enumerate(runs(size, 1))]

    def classified(wanted: Wanted) -> None:
        for frame in frames:
            frame.wanted = wanted
            executor.classify([frame])

    spent: dict[Wanted, list[float]] = {wanted: [] for wanted in Wanted}
    for _ in range(rounds + 3):
        for wanted, each in spent.items():
            each += cpu_seconds(partial(classified, wanted), 1)
    device_us = {wanted: 1e6 * statistics.median(each[3:]) / len(frames) for wanted, each in spent.items()}
    classified(Wanted.BOTH)
    rebuilt = [frame.shown for frame in frames if frame.shown is not None]
    as_sent = [frame.as_sent for frame in frames if frame.as_sent is not None]
    lines = []
    for name, pictures, most, us in (
        ("rebuilt", rebuilt, 85, device_us[Wanted.REBUILT] - device_us[Wanted.NOTHING]),
        ("as sent", as_sent, HOLES_QUALITY, device_us[Wanted.BOTH] - device_us[Wanted.REBUILT]),
    ):
        seconds = cpu_seconds(partial(encoded, pictures, most), rounds + 3)
        jpeg_us = 1e6 * statistics.median(seconds[3:]) / len(pictures)
        length = statistics.mean(len(jpeg) for jpeg in encoded(pictures, most))
        lines.append(f"| {size[0]}×{size[1]} | {name} | {us:,.0f} | {jpeg_us:,.0f} | {length:,.0f} |")
    lines.append(f"| {size[0]}×{size[1]} | verdict alone | {device_us[Wanted.NOTHING]:,.0f} | – | – |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| frame | picture | device, µs | JPEG, µs | bytes |\n| --- | --- | ---: | ---: | ---: |")
    for size in SIZES:
        print("\n".join(rows(size, arguments.rounds)))


if __name__ == "__main__":
    main()
