from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.masks import random_masks
from processors.stages.recent_pixels import REACH, STEADY, RecentPixels, enough
from schemas.errors import StageError

ROOM = 2**24


def scene(seed: int, height: int = 24, width: int = 16, channels: int = 3) -> Tensor:
    levels = torch.randint(0, 256, (1, channels, height, width), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def masks(count: int, height: int = 24, width: int = 16, drop: float = 0.25, seed: int = 0) -> Tensor:
    return random_masks(count, height, width, drop, torch.Generator().manual_seed(seed))


def sent(picture: Tensor, kept: Tensor) -> Tensor:
    """What is known of frames: zero where pixels were dropped."""
    return torch.where(kept, picture.expand(len(kept), -1, -1, -1), torch.zeros(()))


def twice(kept: Tensor) -> Tensor:
    """Where a pixel was sent at least twice: (1, H, W)."""
    return kept.sum(0) >= 2


def test_of_a_still_scene_every_pixel_is_known_that_was_sent_twice() -> None:
    picture, kept = scene(0), masks(6)
    filled, known = RecentPixels(ROOM).compose(["a"] * 6, range(6), sent(picture, kept), kept)
    for place in range(6):
        assert torch.equal(known[place], kept[place] | twice(kept[:place]))
    assert torch.allclose(filled, sent(picture, known), atol=1e-6)
    assert known[0].float().mean() == pytest.approx(0.75)
    assert known[5].float().mean() > 0.98


def test_frames_one_by_one_are_filled_as_all_together() -> None:
    picture, kept = scene(1), masks(5)
    frames = sent(picture, kept)
    together = RecentPixels(ROOM).compose(["a"] * 5, range(5), frames, kept)
    recent = RecentPixels(ROOM)
    parts = [recent.compose(["a"], [i], frames[i : i + 1], kept[i : i + 1]) for i in range(5)]
    for number, expected in enumerate(together):
        assert torch.equal(torch.cat([part[number] for part in parts]), expected)


def test_cameras_do_not_see_each_others_pixels() -> None:
    kept = masks(6)
    frames = sent(scene(0), kept)
    _, known = RecentPixels(ROOM).compose(["a", "a", "b", "b", "a", "c"], range(6), frames, kept)
    assert torch.equal(known[3], kept[3])
    assert torch.equal(known[4], kept[4] | twice(kept[:2]))
    assert torch.equal(known[5], kept[5])


def test_of_steady_pixels_the_newest_value_is_taken_and_what_was_sent_now_stays() -> None:
    kept = masks(3, 8, 8)
    levels = [0.5, 0.5 + STEADY - 0.01, 0.5]
    frames = torch.cat([sent(torch.full((1, 3, 8, 8), x), kept[i : i + 1]) for i, x in enumerate(levels)])
    filled, known = RecentPixels(ROOM).compose(["a"] * 3, range(3), frames, kept)
    from_before = ~kept[2] & kept[1] & kept[0]
    assert from_before.any()
    assert torch.equal(known[2], kept[2] | from_before)
    assert torch.allclose(filled[2, :, from_before[0]], torch.tensor(150 / 255), atol=1e-6)
    assert torch.allclose(filled[2, :, kept[2, 0]], torch.tensor(0.5))
    assert (filled[2][:, ~known[2, 0]] == 0).all()


@pytest.mark.parametrize(("gap", "there"), [(REACH, True), (REACH + 1, False), (10**9, False)])
def test_pixels_older_than_the_reach_are_forgotten(gap: int, there: bool) -> None:
    picture, kept = scene(2), masks(3)
    _, known = RecentPixels(ROOM).compose(["a"] * 3, [6, 7, 7 + gap], sent(picture, kept), kept)
    assert bool((known[2] & ~kept[2]).any()) == there


def test_a_pixel_that_came_the_same_after_too_long_is_not_steady() -> None:
    picture, kept = scene(2), masks(3)
    _, known = RecentPixels(ROOM).compose(["a"] * 3, [0, REACH + 1, REACH + 2], sent(picture, kept), kept)
    assert torch.equal(known[2], kept[2])


def test_what_has_changed_is_not_filled_until_it_has_come_twice_and_the_rest_is() -> None:
    kept = masks(5, 16, 16)
    before = torch.full((1, 3, 16, 16), 0.2)
    now = before.clone()
    now[:, 1, :8, 8:] += STEADY + 0.02
    frames = torch.cat((sent(before, kept[:2]), sent(now, kept[2:])))
    _, known = RecentPixels(ROOM).compose(["a"] * 5, range(5), frames, kept)
    changed = torch.zeros(16, 16, dtype=torch.bool)
    changed[:8, 8:] = True
    assert torch.equal(known[3, 0, ~changed], (kept[3] | twice(kept[:3]))[0, ~changed])
    # Of the changed ones, those sent twice before and not since still seem to be there.
    stale = twice(kept[:2]) & ~kept[2]
    assert torch.equal(known[3, 0, changed], (kept[3] | stale)[0, changed])
    gone = ~(twice(kept[:2]) & ~kept[2] & ~kept[3]) & ~twice(kept[2:4])
    assert torch.equal(known[4, 0, changed], (kept[4] | ~gone)[0, changed])


def test_a_late_frame_is_filled_but_does_not_replace_what_is_newer() -> None:
    kept = masks(4)
    levels = [0.5, 0.5, 0.58, 0.5]
    frames = torch.cat([sent(torch.full((1, 3, 24, 16), x), kept[i : i + 1]) for i, x in enumerate(levels)])
    recent = RecentPixels(ROOM)
    recent.compose(["a"] * 2, [3, 5], frames[:2], kept[:2])
    _, known = recent.compose(["a"], [4], frames[2:3], kept[2:3])
    assert torch.equal(known[0], kept[2] | twice(kept[:2]))
    after, then_known = recent.compose(["a"], [6], frames[3:], kept[3:])
    assert torch.equal(then_known[0], kept[3] | twice(kept[:2]))
    assert torch.allclose(after[0, :, (twice(kept[:2]) & ~kept[3])[0]], torch.tensor(128 / 255), atol=1e-6)


def settled(recent: RecentPixels, cameras: Sequence[Hashable], picture: Tensor) -> Tensor:
    """Send two frames of each camera; which pixels each has sent twice, (B, 1, H, W)."""
    height, width = picture.shape[2:]
    first, second = masks(len(cameras), height, width, seed=8), masks(len(cameras), height, width, seed=9)
    recent.compose(cameras, [0] * len(cameras), sent(picture, first), first)
    recent.compose(cameras, [1] * len(cameras), sent(picture, second), second)
    return first & second


def filled_from(recent: RecentPixels, cameras: Sequence[Hashable], picture: Tensor) -> Tensor:
    """What the third frame of each camera has from before it, (B, 1, H, W)."""
    height, width = picture.shape[2:]
    kept = masks(len(cameras), height, width, seed=10)
    return recent.compose(cameras, [2] * len(cameras), sent(picture, kept), kept)[1] & ~kept


def test_the_cameras_silent_for_longest_give_way_when_there_is_no_room() -> None:
    picture, one = scene(3, 8, 8), 8 * 8 * 5
    recent = RecentPixels(16 * one)
    for number in range(40):
        settled(recent, [number], picture)
        assert recent.nbytes <= 16 * one
    assert filled_from(recent, [39], picture).any()
    assert not filled_from(recent, [0], picture).any()


def test_a_camera_that_has_just_sent_again_is_not_the_one_to_give_way() -> None:
    picture, recent = scene(3, 8, 8), RecentPixels(16 * 8 * 8 * 5)
    settled(recent, range(16), picture)
    filled_from(recent, [0], picture)
    settled(recent, ["another"], picture)
    assert filled_from(recent, [0], picture).any()
    assert not filled_from(recent, [1], picture).any()


def test_a_shape_that_has_just_come_again_is_not_the_one_to_give_way() -> None:
    recent = RecentPixels(3 * 16 * 8 * 8 * 5)
    settled(recent, ["small"], scene(6, 8, 8))
    settled(recent, ["wide"], scene(6, 8, 16))
    filled_from(recent, ["small"], scene(6, 8, 8))
    settled(recent, ["high"], scene(6, 16, 8))
    assert filled_from(recent, ["small"], scene(6, 8, 8)).any()


def test_a_late_frame_makes_the_newer_ones_no_older() -> None:
    picture, kept, recent = scene(2), masks(4), RecentPixels(ROOM)
    for place, number in enumerate((4, 5, 3, 5 + REACH)):
        some = slice(place, place + 1)
        _, known = recent.compose(["a"], [number], sent(picture, kept[some]), kept[some])
    assert (known & ~kept[3]).any()


def test_one_batch_has_room_whatever_the_limit() -> None:
    picture, recent = scene(4), RecentPixels(1)
    there = settled(recent, range(20), picture)
    assert torch.equal(filled_from(recent, range(20), picture), there & ~masks(20, seed=10))


def test_another_shape_takes_the_room_of_the_one_that_came_least_recently() -> None:
    small = scene(6, 8, 8)
    for shapes, remembered in ((1, True), (2, False)):
        recent = RecentPixels(16 * 8 * 8 * 5)
        settled(recent, ["small"], small)
        if shapes == 2:
            settled(recent, ["large"], scene(5))
        assert filled_from(recent, ["small"], small).any() == remembered


@given(
    order=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_known_is_what_the_camera_sent_now_or_twice_before(order: list[str], height: int, width: int) -> None:
    picture = torch.full((1, 1, height, width), 0.5)
    kept = torch.from_numpy(np.random.default_rng(len(order)).random((len(order), 1, height, width)) < 0.6)
    _, known = RecentPixels(ROOM, reach=20).compose(order, range(len(order)), sent(picture, kept), kept)
    for place, camera in enumerate(order):
        before = [i for i in range(place) if order[i] == camera]
        assert torch.equal(known[place], kept[place] | twice(kept[before]))


def test_a_picture_is_composed_when_it_shows_more_than_was_sent_and_not_too_little() -> None:
    def shows(share: float) -> Tensor:
        return (torch.arange(64) < 64 * share).view(1, 1, 8, 8)

    known = torch.cat([shows(0.75), shows(0.75), shows(0.73), shows(1.0)])
    sent_then = torch.cat([shows(0.75), shows(0.5), shows(0.5), shows(0.75)])
    assert enough(known, sent_then).tolist() == [False, True, False, True]


def test_bad_arguments_are_refused() -> None:
    picture, kept = scene(0), masks(1)
    with pytest.raises(StageError, match="expected a camera and a number for each of 1 frames"):
        RecentPixels(ROOM).compose(["a", "b"], [0], picture, kept)
    with pytest.raises(StageError, match="kept: expected"):
        RecentPixels(ROOM).compose(["a"], [0], picture, kept[0])
    with pytest.raises(StageError, match="reach: expected 1 to 254"):
        RecentPixels(ROOM, reach=0)
