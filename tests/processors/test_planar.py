"""Decoded video at the network's scale, compared with a conversion to RGB before the resize."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from processors.arrivals.job import FrameJob
from processors.device.group_masks import GroupMasks
from processors.stages.at_scale import at_scale
from processors.stages.planar import PlanarFrames, PlaneMask, whole_mask
from processors.stages.resample import resize
from processors.stages.scaler import shown_planes
from schemas.errors import StageError
from schemas.messages.frame import mask_seq
from schemas.pixels.fill import Fill
from schemas.pixels.masks import Mask, kept_mask
from schemas.pixels.planes import Colour, Planes, to_picture
from tests.processors.tiny import VideoCamera, batch_executor, camera_key, classify_copies, tiny_bundle, verified_job

LEVEL = 1 / 255
KEY = camera_key("site/cam-0")


def smooth_planes(height: int, width: int, colour: Colour = Colour.BT601_FULL) -> Planes:
    """Return planes of soft colours, whose RGB values need no clipping."""
    down, right = np.mgrid[:height, :width]
    red = 120 + 40 * np.sin(right / 9)
    picture = np.stack([red, 250 - red, 90 + 50 * np.cos(down / 7)], axis=2).astype(np.uint8)
    return Fill(np.ones((height, width), dtype=np.bool_)).picture(picture)._replace(colour=colour)


def mask(height: int, width: int, dropped: int = 16, seq: int = 0, boot_id: int = 1) -> Mask:
    return kept_mask(KEY, boot_id, seq, height, width, dropped)


def assert_near(found: Tensor, expected: Tensor, levels: float) -> None:
    """Check that the difference is within these levels, except at the border, where FFmpeg repeats the edge."""
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=levels * LEVEL, rtol=0)
    torch.testing.assert_close(found, expected, atol=12 * LEVEL, rtol=0)


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(32, 75), st.integers(32, 100)),
    out=st.tuples(st.integers(2, 32), st.integers(2, 32)),
    colour=st.sampled_from(Colour),
)
def test_whole_planes_equal_the_picture_that_is_converted_first(
    size: tuple[int, int], out: tuple[int, int], colour: Colour
) -> None:
    height, width = 2 * size[0], 2 * size[1]
    whole = whole_mask(height, width)
    frames = PlanarFrames([smooth_planes(height, width, colour)], 3, [whole], [whole])
    found, known = frames.at_scale(*out)
    assert known.all()
    assert_near(found, resize(frames.placed, *out), 2)
    torch.testing.assert_close(frames.as_sent(*out), found, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dropped", "levels"), [(16, 2.5), (32, 3), (48, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_kept_planes_nearly_equal_the_picture_that_is_converted_first(
    dropped: int, levels: float, channels: int
) -> None:
    own = PlaneMask(mask(216, 302, dropped))
    frames = PlanarFrames([smooth_planes(216, 302)], channels, [own], [own])
    found, known = frames.at_scale(64, 80)
    expected, expected_known = at_scale(frames.placed, frames.kept, 64, 80)
    assert torch.equal(known, expected_known)
    assert_near(found, expected, levels)
    assert_near(frames.as_sent(64, 80), resize(frames.placed, 64, 80), levels)


@pytest.mark.parametrize("dropped", [16, 32, 48])
@pytest.mark.parametrize("size", [(64, 80), (86, 120), (108, 151), (144, 202), (200, 300)])
def test_pixels_without_kept_chroma_get_the_chroma_of_neighbours(size: tuple[int, int], dropped: int) -> None:
    own = PlaneMask(mask(216, 302, dropped))
    frames = PlanarFrames([smooth_planes(216, 302)], 3, [own], [own])
    found, known = frames.at_scale(*size)
    expected, expected_known = at_scale(frames.placed, frames.kept, *size)
    difference = (found - expected).abs()[..., 1:-1, 1:-1] * (known & expected_known)[..., 1:-1, 1:-1]
    assert difference.max() <= 30 * LEVEL
    assert difference.mean() <= 1.6 * LEVEL


def test_pixels_without_kept_samples_are_black_and_not_known() -> None:
    kept = np.ones((96, 128), dtype=np.bool_)
    kept[:48] = False
    own = PlaneMask(kept)
    frames = PlanarFrames([smooth_planes(96, 128)], 3, [own], [own])
    found, known = frames.at_scale(32, 32)
    assert torch.equal(known, at_scale(frames.placed, frames.kept, 32, 32)[1])
    assert not known.all()
    assert not found.mul(~known).any()
    assert found.mul(known).any()


def test_values_at_dropped_positions_are_not_read() -> None:
    kept = mask(96, 128, 48)
    planes = smooth_planes(96, 128)
    assert planes.blue is not None
    assert planes.red is not None
    cells = kept.reshape(48, 2, 64, 2).any(axis=(1, 3))
    other = planes._replace(
        luma=np.where(kept, planes.luma, 255 - planes.luma),
        blue=np.where(cells, planes.blue, 7),
        red=np.where(cells, planes.red, 250),
    )
    own = PlaneMask(kept)
    found, expected = (PlanarFrames([each], 3, [own], [own]).at_scale(32, 32)[0] for each in (planes, other))
    assert torch.equal(found, expected)


def test_an_index_selects_frames_that_do_not_depend_on_the_others() -> None:
    masks = [PlaneMask(mask(96, 128, seq=seq)) for seq in range(3)]
    planes = [smooth_planes(96, 128, colour) for colour in list(Colour)[:3]]
    frames = PlanarFrames(planes, 3, masks, masks)
    some = frames[[2, 0]]
    assert torch.equal(some.kept, frames.kept[[2, 0]])
    assert torch.equal(some.placed, frames.placed[[2, 0]])
    assert torch.equal(some.at_scale(32, 32)[0], frames.at_scale(32, 32)[0][[2, 0]])


def test_a_size_without_pixels_is_rejected() -> None:
    whole = whole_mask(64, 64)
    with pytest.raises(StageError, match="at least 1"):
        PlanarFrames([smooth_planes(64, 64)], 3, [whole], [whole]).at_scale(0, 4)


def test_a_group_has_one_mask_and_the_memory_of_all_masks_is_bounded() -> None:
    def jobs(boot_id: int) -> Iterator[FrameJob]:
        camera = VideoCamera(boot_id=boot_id)
        for _ in range(2):
            job = camera.frame()
            job.planes = smooth_planes(64, 96)
            yield job

    masks = GroupMasks(held_bytes=30_000)
    for boot_id in range(1, 7):
        first, second = jobs(boot_id)
        frames = masks.frames([first, second], 32, 32)
        assert torch.equal(frames.kept[0], frames.kept[1])
        expected = kept_mask(KEY, boot_id, 0, 64, 96, 16)
        assert np.array_equal(frames.kept[0, 0].numpy(), expected)
    assert 1 <= len(masks) < 6


@pytest.mark.parametrize("probe_share", [0.0, 1.0])
def test_the_verdict_equals_that_of_pictures_that_are_converted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe_share: float
) -> None:
    camera, executor = VideoCamera(probe_share=probe_share), batch_executor(tiny_bundle(tmp_path))
    jobs = [verified_job(camera.message(), camera.name) for _ in range(4)]
    for seq, job in enumerate(jobs):
        kept = (
            np.ones((64, 96), dtype=np.bool_) if job.frame.whole else mask(64, 96, seq=mask_seq(job.frame), boot_id=7)
        )
        job.planes = Fill(kept).picture(camera.shown(seq))
    found = classify_copies(executor, jobs, [2] * 4)
    monkeypatch.setattr(executor, "_is_planar", lambda job: False)
    expected = classify_copies(executor, jobs, [2] * 4)
    for one, other in zip(found, expected, strict=True):
        assert one.error is None
        assert one.class_id == other.class_id
        assert abs(one.confidence - other.confidence) < 0.01
        for planar, converted in ((one.shown, other.shown), (one.as_sent, other.as_sent)):
            assert planar is not None
            assert converted is not None
            different = np.abs(planar.astype(int) - converted)[1:-1, 1:-1]
            # In a preview, the dropped pixels have the values with which the camera has filled them.
            assert different.mean() <= 6 if planar is one.shown and not probe_share else different.max() <= 2
        assert (one.probe is None) == (other.probe is None)
        if one.probe is not None:
            torch.testing.assert_close(one.probe, other.probe, atol=0.05, rtol=0)


@pytest.mark.parametrize("colour", list(Colour))
@pytest.mark.parametrize("size", [(216, 300), (217, 301)])
def test_previews_of_decoded_video_equal_the_resampled_picture_up_to_rounding(
    colour: Colour, size: tuple[int, int]
) -> None:
    planes = smooth_planes(*size, colour)
    shown = shown_planes(planes, 108, 150)
    assert shown.shape == (108, 150, 3)
    picture = torch.from_numpy(to_picture(planes)).permute(2, 0, 1) / 255
    expected = resize(picture[None], 108, 150)[0].permute(1, 2, 0).numpy()
    assert np.abs(shown / 255 - expected).max() <= 24 * LEVEL
    assert np.abs(shown / 255 - expected).mean() <= 4 * LEVEL
    grey = shown_planes(planes._replace(blue=None, red=None), 108, 150)
    assert grey.shape == (108, 150, 1)


def test_video_with_an_odd_side_is_not_scaled_in_planes_but_converted_first(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="even sides"):
        PlaneMask(mask(65, 96))
    camera, executor = VideoCamera(), batch_executor(tiny_bundle(tmp_path))
    job = camera.frame()
    height, width, channels = job.shape
    job.shape = job.shape._replace(height=height + 1)
    job.planes = Fill(mask(height + 1, width)).picture(np.zeros((height + 1, width, channels), dtype=np.uint8))
    assert executor.batch_pixels(job) == (height + 1) * width


def test_two_threads_scale_at_the_same_time() -> None:
    planes = [smooth_planes(96, 128, colour) for colour in Colour]
    expected = [shown_planes(each, 48, 64) for each in planes]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda place: shown_planes(planes[place % 4], 48, 64), range(64)))
    assert all(np.array_equal(each, expected[place % 4]) for place, each in enumerate(found))


def test_a_scaled_picture_is_not_overwritten_by_the_next_one() -> None:
    grey = [Planes(np.full((48, 64), level, dtype=np.uint8), None, None) for level in (10, 200)]
    coloured = [smooth_planes(48, 64), smooth_planes(48, 64)._replace(luma=np.full((48, 64), 7, dtype=np.uint8))]
    for first, second in (grey, coloured):
        for size in ((48, 64), (24, 32)):
            shown = shown_planes(first, *size)
            before = shown.copy()
            shown_planes(second, *size)
            assert np.array_equal(shown, before)
