"""The comparison of the profile `video` with its bare codec, and the attack on decoding processes."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.bytes.video import LENGTHS, by_length, measured, page
from benchmarks.security.video_fuzz import Honest, chain, mutated
from processors.decoding.decoders import VideoDecoders
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import Colour, Planes


def frames(count: int) -> list[Planes]:
    down, right = np.mgrid[:64, :96]
    chroma = np.full((32, 48), 120, np.uint8)
    return [
        Planes(
            (128 + 60 * np.sin((right + number) / 9) * np.cos(down / 7)).astype(np.uint8),
            chroma,
            chroma,
            Colour.BT601_LIMITED,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_a_row_compares_bytes_pictures_and_time(codec: str) -> None:
    row = measured("film.mp4", frames(6), codec, 20, 16, 3)
    assert (row.size, row.frames, row.groups, row.compared) == ("96x64", 6, 1, 2)
    assert row.bytes_ratio == pytest.approx(row.video_bytes / row.bare_bytes)
    assert row.video_psnr_db > 30
    assert row.loss_db == pytest.approx(row.bare_psnr_db - row.video_psnr_db)
    lengths = by_length("film.mp4", frames(12), 16)
    assert lengths["1"] > lengths["250"]
    text = page({"command": "python -m x", "drop": 0.25, "rows": [asdict(row)], "lengths": [lengths]})
    assert f"| {row.bytes_ratio:.2f} | {row.raw_ratio:.4f} |" in text
    assert all(str(each) in text for each in LENGTHS)


def test_the_attack_changes_units_and_times_an_honest_camera() -> None:
    random = np.random.default_rng(1)
    units = chain(Codec.H264, 2)
    changed = [mutated(units[0], units[1], random) for _ in range(40)]
    assert sum(each != units[0] for each in changed) > 30
    decoders = VideoDecoders()
    try:
        assert Honest(decoders).timed() > 0
        assert decoders.counts == {"decoded": 1}
    finally:
        decoders.close()


def test_a_video_without_a_frame_to_compare_is_rejected_before_it_is_measured() -> None:
    with pytest.raises(SystemExit, match=r"--every: expected at most 5 for 3 frames of door\.mp4, got 6"):
        measured("door.mp4", frames(3), "h264", 23, 16, 6)
