"""Packed frames at scale, compared with placed frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.masks import random_masks
from processors.stages.at_scale import at_scale
from processors.stages.packed import PackedFrames
from processors.stages.unpack import place
from schemas.errors import StageError


def sent_as(pictures: Tensor, sent: Tensor) -> Tensor:
    """Return the pixels (P, C) of frames (B, C, H, W) uint8 at which `sent` (B, 1, H, W) is True, frame by frame."""
    return pictures.permute(0, 2, 3, 1)[sent[:, 0]]


def drawn(seed: int, batch: int, channels: int, height: int, width: int, drop: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return noise frames (B, C, H, W) uint8, the masks of sent pixels, and the masks of kept pixels.

    The first frame is a probe: all its pixels are sent.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (batch, channels, height, width), generator=generator, dtype=torch.uint8)
    kept = random_masks(batch, height, width, drop, generator)
    sent = kept.clone()
    sent[0] = True
    return pictures, sent, kept


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(2, 130),
    width=st.integers(2, 500),
    channels=st.sampled_from((1, 3)),
    batch=st.integers(1, 3),
    drop=st.sampled_from((0.0, 0.25, 0.875)),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_packed_frames_at_scale_equal_placed_frames_at_scale(
    height: int, width: int, channels: int, batch: int, drop: float, seed: int, data: st.DataObject
) -> None:
    # torch 2.13 resizes pictures to a width of one pixel wrongly.
    size = data.draw(st.integers(1, height)), data.draw(st.integers(2, width))
    pictures, sent, kept = drawn(seed, batch, channels, height, width, drop)
    packed = PackedFrames(sent_as(pictures, sent), sent, kept)
    frames = pictures.float() / 255 * sent
    assert torch.equal(packed.placed, frames)
    assert packed.shape == frames.shape
    found, known = packed.at_scale(*size)
    expected, expected_known = at_scale(frames, kept, *size)
    share = at_scale(torch.ones_like(frames[:, :1]), kept, *size)[1]
    # A share of the weights that equals the threshold up to rounding may lie on either side of it.
    same = known == expected_known
    assert same.float().mean() > 0.999 or share.numel() < 1000
    torch.testing.assert_close(found * same, expected * same, atol=2e-6, rtol=0)


def test_a_packed_frame_at_scale_does_not_depend_on_its_batch() -> None:
    pictures, sent, kept = drawn(1, 3, 3, 240, 320, 0.25)
    together, _ = PackedFrames(sent_as(pictures, sent), sent, kept).at_scale(64, 96)
    for i in range(3):
        one = slice(i, i + 1)
        alone, _ = PackedFrames(sent_as(pictures[one], sent[one]), sent[one], kept[one]).at_scale(64, 96)
        assert torch.equal(alone[0], together[i])


def test_an_index_of_packed_frames_selects_those_frames() -> None:
    pictures, sent, kept = drawn(2, 4, 3, 16, 24, 0.5)
    packed = PackedFrames(sent_as(pictures, sent), sent, kept)
    some = packed[[3, 1]]
    assert torch.equal(some.placed, packed.placed[[3, 1]])
    assert torch.equal(some.kept, kept[[3, 1]])
    assert packed[[0, 1, 2, 3]] is packed
    assert len(packed[[]].placed) == 0


def test_pixels_that_a_probes_mask_drops_are_not_read() -> None:
    pictures, sent, kept = drawn(3, 1, 3, 48, 64, 0.25)
    other = torch.where(kept, pictures, 255 - pictures)
    found, expected = (PackedFrames(sent_as(each, sent), sent, kept).at_scale(16, 16)[0] for each in (pictures, other))
    assert torch.equal(found, expected)


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(2, 130),
    width=st.integers(2, 300),
    channels=st.sampled_from((1, 3)),
    drop=st.sampled_from((0.0, 0.25, 0.75)),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_previews_equal_frames_at_scale_up_to_rounding(
    height: int, width: int, channels: int, drop: float, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, height)), data.draw(st.integers(2, width))
    pictures, sent, kept = drawn(seed, 2, channels, height, width, drop)
    packed = PackedFrames(sent_as(pictures, sent), sent, kept)
    found, known = packed.for_people(*size)
    expected, expected_known = packed.at_scale(*size)
    share = PackedFrames(sent_as(torch.full_like(pictures, 255), sent), sent, kept)._sums(*size)[:, -1:]
    clear = (share > 0.05) & known & expected_known
    assert torch.equal(clear, share > 0.05)
    assert (((found - expected).abs() * share)[clear.expand_as(found)] <= 3.1 / 255).all()


def test_packed_frames_without_sent_pixels_are_black_and_unknown() -> None:
    nothing = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    found, known = PackedFrames(torch.zeros(1, 3, dtype=torch.uint8), nothing, nothing).at_scale(4, 4)
    assert not known.any()
    assert not found.any()


@pytest.mark.parametrize("size", [(0, 4), (4, 17)])
def test_packed_frames_reject_a_larger_or_empty_size(size: tuple[int, int]) -> None:
    everything = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    with pytest.raises(StageError, match="expected"):
        PackedFrames(torch.zeros(256, 3, dtype=torch.uint8), everything, everything).at_scale(*size)


def test_placed_pixels_equal_a_division_by_255_bit_for_bit() -> None:
    pixels = torch.from_numpy(np.arange(256, dtype=np.uint8))[:, None]
    found = place(pixels, torch.ones(1, 1, 16, 16, dtype=torch.bool))
    assert torch.equal(found.flatten(), pixels.flatten().float() / 255)
