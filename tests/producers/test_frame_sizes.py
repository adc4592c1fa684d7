"""The mean frame size of a source's own stream compared with the published frames."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from benchmarks.harness.videos import write_video
from producers.camera.frame_sizes import LEAST_S, FrameSizes
from producers.sources.settings import SourceSettings
from producers.sources.stream_size import HALF, LEAST, StreamSize
from producers.sources.video import VideoSource

FRAMES = 2 * LEAST


def test_the_size_of_a_stream_is_the_mean_of_its_packets(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)
    file = write_video(tmp_path / "street.mp4", noise)
    with av.open(str(file)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    source = VideoSource(SourceSettings(kind="video", file=file))
    found = []
    while (captured := source.read()) is not None:
        found.append(captured.stream_frame_bytes)
    source.close()
    assert len(sizes) == len(found) == FRAMES
    assert found[0] == 0, "a key frame alone has no mean"
    assert found[-1] == round(sum(sizes) / FRAMES)


def test_recent_frames_weigh_more() -> None:
    size = StreamSize()
    for _ in range(4 * HALF):
        size.note(1000)
    for _ in range(4 * HALF):
        size.note(100)
    assert 100 < size.frame_bytes < 325


def test_changed_sizes_are_announced_at_a_bounded_rate() -> None:
    sizes = FrameSizes()
    assert [sizes.changed(3000, 4000, 0.0) for _ in range(LEAST)] == [False] * (LEAST - 1) + [True]
    assert (sizes.own, sizes.sent) == (3000, 4000)
    assert not sizes.changed(3600, 4000, 2 * LEAST_S), "a fifth is no change"
    assert not sizes.changed(4000, 4000, LEAST_S / 2), "too soon"
    assert sizes.changed(4000, 4000, 2 * LEAST_S)
    assert sizes.own == 4000


def test_a_source_without_its_own_stream_announces_no_sizes() -> None:
    sizes = FrameSizes()
    assert not any(sizes.changed(0, 4000, 100.0 * turn) for turn in range(FRAMES))
    assert (sizes.own, sizes.sent) == (0, 0)
