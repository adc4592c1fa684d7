"""The scenes that a processor recognises in videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.videos import sampled_pictures, shades, write_video
from benchmarks.models import scenes as benchmark
from benchmarks.models.scenes import INTERVALS, SHARE, STICKERS, of_file, rows, with_stickers
from processors.stages.scenes import SIDE

BLOCKS = SIDE**2


def pictures(count: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the blocks of `count` frames of one scene, (count, 3, blocks)."""
    scene = np.random.default_rng(seed).random((1, 3, BLOCKS), np.float32)
    return scene.repeat(count, 0)


@pytest.mark.parametrize(("blocks", "recognised"), [(9, 1.0), (BLOCKS, 0.0)])
def test_a_sticker_is_recognised_unless_it_changes_the_whole_frame(blocks: int, recognised: float) -> None:
    clean = pictures(40)
    attacked = clean.copy()
    attacked[:, :, :blocks] = pictures(40, 1)[:, :, :blocks]
    found = rows("hall", clean, [attacked])
    assert [row.interval_s for row in found] == [0.2, 1.0, 4.0]
    for row, step in zip(found, INTERVALS, strict=True):
        assert (row.cameras, row.probes, row.scenes, row.in_commonest) == (step, 40, 1.0, 1.0)
        assert (row.recognised_clean, row.with_sticker, row.recognised) == (1.0, 20, recognised)


def test_a_camera_that_turns_shows_two_scenes() -> None:
    turned = np.concatenate([pictures(30), pictures(10, 1)])
    found = rows("hall", turned, [turned])
    assert found[0].scenes == 2
    assert found[0].in_commonest == 0.75
    # Before the middle, the camera has shown the first scene alone.
    assert found[0].recognised == found[0].recognised_clean == 0.5


def test_a_sticker_has_its_share_of_the_frame_and_the_picture_stays() -> None:
    picture = np.full((432, 768, 3), 100, np.uint8)
    clean, *stuck = with_stickers(picture)
    assert (clean == 100).all()
    for (_, level), found in zip(STICKERS, stuck, strict=True):
        assert (found == level).all(2).mean() == pytest.approx(SHARE, rel=0.02)
        assert (found == 100).all(2).mean() == pytest.approx(1 - SHARE, rel=0.001)


def test_a_video_is_read_at_the_given_rate(tmp_path: Path) -> None:
    file = write_video(tmp_path / "hall.mp4", shades(20, 64, 48), fps=10.0)
    times, frames = zip(*sampled_pictures(file, 5.0), strict=True)
    assert times == pytest.approx([0.2 * number for number in range(10)])
    assert frames[0].shape == (48, 64, 3)


def test_all_stickers_are_put_on_the_frames_of_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    file = write_video(tmp_path / "hall.mp4", [scene] * 60, fps=5.0, crf="10")
    small = of_file(file)
    assert {row.video for row in small} == {"hall"}
    assert [(row.probes, row.recognised) for row in small] == [(60, 1.0)] * 3
    assert small[0].with_sticker == 30 * len(STICKERS)
    monkeypatch.setattr(benchmark, "SHARE", 0.4)
    assert of_file(file)[0].recognised < 1
