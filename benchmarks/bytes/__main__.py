"""What a camera's profiles cost in bytes and CPU time beside JPEG, and beside H.264 of the same quality on display.

    python -m benchmarks.bytes --out docs/results/bytes

Every frame of each `--video` (by default those under $POINTILLIST_DATA/video) is sent in each way; every `--every`-th
is shown as the server shows it, rebuilt, and compared with the camera's picture. Of libx264's presets the highest
constant rate factor is looked for that shows at least the same PSNR. What was measured lies in the CSV file and is not
measured again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import cv2
import torch

from benchmarks.bytes.page import page, plot
from benchmarks.bytes.rows import JPEG, PRESETS, PROFILES_SENT, Row, h264
from benchmarks.bytes.search import next_factor
from benchmarks.bytes.ways import as_h264, bytes_a_frame, frame_by_frame, read
from lab.results.csv_rows import read_rows, write_rows
from schemas.limits import dropped_per_block
from schemas.runtime.atomic_file import replacing

EQUALS: Final = ("raw", JPEG)
"""The ways for which the search looks for an H.264 of no lower PSNR."""


class Table:
    """The rows so far, written whenever one comes. Rows of other numbers of frames make room for new ones."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows = read_rows(file, Row)

    def of(self, video: str, frames: int, way: str) -> list[Row]:
        """What has been measured of a way, by rising factors."""
        return [row for row in self.rows if (row.video, row.frames, row.way) == (video, frames, way)]

    def add(self, rows: list[Row]) -> None:
        """New ones."""
        fresh = {(row.video, row.frames) for row in rows}
        old = [row for row in self.rows if (row.video, row.frames) in fresh or row.video not in dict(fresh)]
        self.rows = sorted(old + rows, key=lambda row: (row.video, row.way, row.crf or 0))
        write_rows(self._file, self.rows, Row)
        for row in rows:
            print(row, flush=True)


def measure(video: Path, table: Table, dropped: int, every: int, most: int) -> None:
    """All ways of one video."""
    frames = read(video, most)
    if not all(table.of(video.name, len(frames), way) for way in (*PROFILES_SENT, JPEG)):
        table.add(frame_by_frame(video.name, frames, dropped, every))
    for preset in PRESETS:
        for way in EQUALS:
            (target,) = table.of(video.name, len(frames), way)
            while True:
                rows = table.of(video.name, len(frames), h264(preset))
                crf = next_factor([(each.crf or 0, each.psnr_db) for each in rows], target.psnr_db)
                if crf is None:
                    break
                table.add([as_h264(video.name, frames, preset, crf, every)])


def main() -> None:
    """Measure what is missing, and write table, page and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where table, page and plot go")
    parser.add_argument("--video", type=Path, nargs="*", help="video files")
    parser.add_argument("--frames", type=int, default=0, help="at most so many of each video; 0 is all")
    parser.add_argument("--every", type=int, default=20, help="compare every so many frames with the camera's")
    parser.add_argument("--drop", type=float, default=0.25)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    folder = os.environ.get("POINTILLIST_DATA")
    videos = options.video or (sorted(Path(folder, "video").glob("*.mp4")) if folder else [])
    table = Table(options.out / "bytes.csv")
    for video in videos:
        measure(video, table, dropped_per_block(options.drop), options.every, options.frames)
    if not table.rows:
        parser.error("expected --video, or videos under $POINTILLIST_DATA/video")
    plot(table.rows, options.out / "bytes.png")
    files = {video.name: bytes_a_frame(video) for video in videos}
    with replacing(options.out / "README.md") as fresh:
        fresh.write_text(page(table.rows, options.drop, files, options.frames), encoding="utf-8")


if __name__ == "__main__":
    main()
