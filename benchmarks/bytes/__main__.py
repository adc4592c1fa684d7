"""Bytes and CPU time of a camera's profiles, compared with JPEG and with H.264 of the same displayed quality.

    python -m benchmarks.bytes --out docs/results/bytes

Every frame of each `--video` (default: those under $POINTILLIST_DATA/video) is sent in each way. Every `--every`-th
frame is rebuilt as the server displays it, and compared with the camera's picture. For each preset of libx264 a search
finds the highest constant rate factor with at least the same PSNR. Results in the CSV file are not measured again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import torch

from benchmarks.bytes.page import page, plot
from benchmarks.bytes.rows import DROP, JPEG, PRESETS, PROFILES_SENT, Row, h264
from benchmarks.bytes.search import next_factor
from benchmarks.bytes.ways import as_h264, bytes_a_frame, frame_by_frame, read
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_videos
from lab.results.csv_rows import read_rows, write_rows
from schemas.limits import dropped_per_block
from schemas.runtime.atomic_file import replacing

EQUALS: Final = ("raw", JPEG)
"""The ways for which the search finds an H.264 stream of no lower PSNR."""


class Table:
    """The rows so far, written after each addition. New rows replace those with another number of frames."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows = read_rows(file, Row)

    def of(self, video: str, frames: int, way: str) -> list[Row]:
        """Return the measured rows of a way, by rising rate factors."""
        return [row for row in self.rows if (row.video, row.frames, row.way) == (video, frames, way)]

    def add(self, rows: list[Row]) -> None:
        """Add new rows."""
        fresh = {(row.video, row.frames) for row in rows}
        old = [row for row in self.rows if (row.video, row.frames) in fresh or row.video not in dict(fresh)]
        self.rows = sorted(old + rows, key=lambda row: (row.video, row.way, row.crf or 0))
        write_rows(self._file, self.rows, Row)
        for row in rows:
            print(row, flush=True)


def measure(video: Path, table: Table, every: int, most: int) -> None:
    """Measure all ways for one video."""
    frames = read(video, most)
    if not all(table.of(video.name, len(frames), way) for way in (*PROFILES_SENT, JPEG)):
        table.add(frame_by_frame(video.name, frames, dropped_per_block(DROP), every))
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
    """Measure the missing rows, and write table, page and plot."""
    options = command_line(
        __doc__,
        out=Option(Path, "folder for table, page and plot", required=True),
        video=Option(Path, "video files", several="*"),
        frames=Option(0, "most frames of each video (0: all)"),
        every=Option(20, "compare every N-th frame with the camera's picture"),
    )
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    videos = options.video or sample_videos()
    table = Table(options.out / "bytes.csv")
    for video in videos:
        measure(video, table, options.every, options.frames)
    plot(table.rows, options.out / "bytes.png")
    files = {video.name: bytes_a_frame(video) for video in videos}
    with replacing(options.out / "README.md") as fresh:
        fresh.write_text(page(table.rows, options.command, files, options.frames), encoding="utf-8")


if __name__ == "__main__":
    main()
