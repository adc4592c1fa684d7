"""The comparison of bytes: the search for an H.264 of equal quality, the rows of earlier runs, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bytes import __main__ as main_module
from benchmarks.bytes.__main__ import Table
from benchmarks.bytes.rows import JPEG, PRESETS, PROFILES_SENT, Row, equal, h264
from benchmarks.bytes.search import CRFS, next_factor
from benchmarks.bytes.ways import as_h264, frame_by_frame


def row(way: str, crf: int | None = None, psnr: float = 45.0, size: float = 1000.0, frames: int = 10) -> Row:
    return Row("door.mp4", way, crf, frames, 2, size, psnr, 0.99, psnr, 2.0, 1.0, 3)


@given(st.lists(st.floats(0.01, 3), min_size=len(CRFS), max_size=len(CRFS)), st.floats(-10, 90))
def test_the_search_ends_at_the_highest_factor_with_enough_quality(steps: list[float], target: float) -> None:
    quality = (60 - np.cumsum(steps)).tolist()
    known: list[tuple[int, float]] = []
    while (crf := next_factor(known, target)) is not None:
        assert crf not in dict(known)
        known.append((crf, quality[crf]))
    rows = [row(h264("medium"), crf, psnr, 1000.0 - crf) for crf, psnr in known]
    enough = [crf for crf in CRFS if quality[crf] >= target]
    found = equal(rows, "medium", row("raw", psnr=target))
    assert (found.crf if found else None) == (enough[-1] if enough else None)


def test_measured_rows_are_kept_and_rows_of_another_length_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bytes.csv"
    Table(file).add([row("raw"), row("raw", frames=10), replace(row("raw"), video="yard.mp4")])
    again = Table(file)
    assert len(again.of("door.mp4", 10, "raw")) == 2
    again.add([row("raw", frames=20)])
    assert [(each.video, each.frames) for each in Table(file).rows] == [("door.mp4", 20), ("yard.mp4", 10)]


def moving(count: int) -> list[av.VideoFrame]:
    pictures = np.random.default_rng(4).integers(90, 110, (1, 48, 64, 3), np.uint8).repeat(count, axis=0)
    for number, picture in enumerate(pictures):
        picture[8:24, 2 * number : 2 * number + 16] = 230
    return [av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p") for picture in pictures]


@pytest.mark.parametrize("preset", PRESETS)
def test_libx264_returns_every_frame_and_a_higher_factor_saves_bytes_at_lower_quality(preset: str) -> None:
    fine, coarse = (as_h264("door.mp4", moving(12), preset, crf, 4) for crf in (10, 40))
    assert (fine.frames, fine.compared, fine.way) == (12, 3, h264(preset))
    assert fine.psnr_db > coarse.psnr_db
    assert fine.bytes_a_frame > coarse.bytes_a_frame > 0


def test_each_profile_is_measured_on_the_pictures_decoded_from_its_pixels() -> None:
    found = {each.way: each for each in frame_by_frame("door.mp4", moving(5), 16, 4)}
    assert set(found) == {*PROFILES_SENT, JPEG}
    assert found["raw"].psnr_db == found["lossless"].psnr_db
    assert found["raw"].bytes_a_frame > found["lossless"].bytes_a_frame
    assert 48 * 64 * 3 * 0.75 < found["raw"].bytes_a_frame < 48 * 64 * 3 * 0.75 + 60
    assert all(each.cpu_ms > 0 for each in found.values())


def test_the_page_names_its_command_and_the_drop_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--out", str(tmp_path), "--video", "door.mp4", "--frames", "10"]
    Table(tmp_path / "bytes.csv").add([row("raw"), row("lossless"), row(JPEG)])
    monkeypatch.setattr(main_module, "measure", lambda *_: None)
    monkeypatch.setattr(main_module, "bytes_a_frame", lambda _: 1000.0)
    monkeypatch.setattr("sys.argv", ["bytes.py", *command, "--every", "7"])
    main_module.main()
    page = (tmp_path / "README.md").read_text()
    assert " --video door.mp4 --frames 10 --every 7`" in page
    monkeypatch.setattr("sys.argv", ["bytes.py", *command, "--drop", "0.75"])
    with pytest.raises(SystemExit):
        main_module.main()
