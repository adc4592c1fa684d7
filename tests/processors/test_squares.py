"""The policy `motion`: the square around moving parts of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.masks import random_masks
from processors.pipeline import Pipeline
from processors.stages.packed import PackedFrames
from processors.stages.planar import PlanarFrames, PlaneMask
from processors.stages.resample import resize
from processors.stages.squares import cut_frame, square
from processors.stages.unpack import place
from schemas.messages.frame import Encoding
from schemas.messages.moving import Box, pack_moving
from schemas.pixels.fill import Fill
from schemas.pixels.masks import kept_mask
from tests.processors.tiny import (
    batch_executor,
    camera_key,
    classify_copies,
    payload,
    picture,
    tiny_bundle,
    verified_job,
)

PART = Box(16, 58, 24, 88)


@settings(max_examples=200, deadline=None)
@given(st.integers(32, 900), st.integers(32, 900), st.integers(8, 32), st.data())
def test_a_square_lies_in_the_frame_around_the_box(height: int, width: int, least: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, data.draw(st.integers(top + 1, height)), left, data.draw(st.integers(left + 1, width)))
    found = square(box, height, width, least)
    assert 0 <= found.top <= box.top < box.bottom <= found.bottom <= height
    assert 0 <= found.left <= box.left < box.right <= found.right <= width
    assert found.top % 8 == found.left % 8 == 0
    side = max(box.bottom - box.top, box.right - box.left, least)
    assert min(side, height) <= found.bottom - found.top < side + 16
    assert min(side, width) <= found.right - found.left < side + 16


def test_a_cut_of_packed_frames_equals_the_cut_of_placed_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (3, 3, 96, 120), generator=generator, dtype=torch.uint8)
    sent = random_masks(3, 96, 120, 0.25, generator)
    sent[1] = True
    pixels = pictures.permute(0, 2, 3, 1)[sent[:, 0]]
    packed, placed = PackedFrames(pixels, sent, sent), place(pixels, sent)
    for i in range(3):
        part = cut_frame(packed, i, PART)
        assert isinstance(part, PackedFrames)
        assert torch.equal(part.placed, placed[i : i + 1, :, 16:58, 24:88])
        assert torch.equal(part.kept, sent[i : i + 1, :, 16:58, 24:88])


def test_a_cut_of_planes_equals_the_cut_of_placed_frames() -> None:
    shown = Fill(np.ones((96, 120), np.bool_)).picture(picture(0, 96, 120))
    own = PlaneMask(kept_mask(camera_key("site/cam-0"), 1, 0, 96, 120, 16))
    frames = PlanarFrames([shown], 3, [own], [own])
    part = cut_frame(frames, 0, PART)
    assert isinstance(part, PlanarFrames)
    assert torch.equal(part.placed, frames.placed[:, :, 16:58, 24:88])


def test_frames_with_motion_are_replaced_by_the_square_around_it(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, policy="motion")
    side = bundle.settings.input.height
    pipeline = Pipeline(bundle)
    frames = torch.rand(3, 3, 4 * side, 5 * side, generator=torch.Generator().manual_seed(1))
    kept = torch.ones(3, 1, 4 * side, 5 * side, dtype=torch.bool)
    box = Box(side, 3 * side, 2 * side, 4 * side)
    squares = pipeline.squares([None, box, None], 4 * side, 5 * side)
    assert squares == [None, box, None]
    found, _ = pipeline.network_input(frames, kept, squares=squares, denoised=False)
    whole, _ = pipeline.network_input(frames, kept, denoised=False)
    alone = resize(frames[1:2, :, side : 3 * side, 2 * side : 4 * side], side, side)
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]])
    torch.testing.assert_close(found[1:2], alone)
    assert not torch.allclose(found[1], whole[1], atol=0.02)


def test_frames_stay_whole_without_motion_under_another_policy_and_in_the_networks_size(tmp_path: Path) -> None:
    motion = Pipeline(tiny_bundle(tmp_path / "a", policy="motion"))
    side = motion.bundle.settings.input.height
    box = Box(0, 8, 0, 8)
    assert motion.squares([None, None], 4 * side, 4 * side) is None
    assert motion.squares([box], side, side) is None
    assert Pipeline(tiny_bundle(tmp_path / "b")).squares([box], 4 * side, 4 * side) is None


def test_a_processor_classifies_the_square_that_the_camera_signed(tmp_path: Path) -> None:
    executor = batch_executor(tiny_bundle(tmp_path, policy="motion"))
    side = executor.pipeline.bundle.settings.input.height
    size = 4 * side, 5 * side
    box = pack_moving(Box(side, 2 * side, side, 2 * side), *size)
    messages = [
        payload("site/cam-0", seq, shown=picture(0, *size), encoding=Encoding(16, probe), moving=moving)
        for seq, moving, probe in ((0, 0, 0.0), (0, box, 0.0), (1, box, 1.0))
    ]
    whole, cut, probe = classify_copies(executor, [verified_job(each) for each in messages])
    alone = classify_copies(executor, [verified_job(messages[1])])[0]
    assert whole.error is cut.error is probe.error is None
    assert cut.scores.confidence != whole.scores.confidence
    assert abs(cut.scores.confidence - alone.scores.confidence) < 1e-5


def test_planes_give_the_square_of_the_placed_frames(tmp_path: Path) -> None:
    pipeline = Pipeline(tiny_bundle(tmp_path, policy="motion"))
    down, right = np.mgrid[:128, :160]
    red = 120 + 40 * np.sin(right / 9)
    shown = np.stack([red, 250 - red, 90 + 50 * np.cos(down / 7)], axis=2).astype(np.uint8)
    planes = Fill(np.ones((128, 160), np.bool_)).picture(shown)
    own = PlaneMask(kept_mask(camera_key("site/cam-0"), 1, 0, 128, 160, 16))
    frames = PlanarFrames([planes, planes], 3, [own, own], [own, own])
    squares = pipeline.squares([Box(20, 70, 40, 90), None], 128, 160)
    found, _ = pipeline.network_input(frames, frames.kept, squares=squares)
    expected, _ = pipeline.network_input(frames.placed, frames.kept, squares=squares)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
