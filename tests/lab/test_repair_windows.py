"""Triggers at random places, found by hiding windows from a classifier that maps white squares to the target."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.repair import recovery
from lab.repair.checkpoints import Checkpoints
from lab.repair.occlusion import Occlusion, occlude
from lab.repair.recovery import TransplantTrigger, recover
from lab.repair.run import Silent
from lab.repair.transplant import MaskNetwork, point, widened

SIDE, PATCH, TARGET = 16, 3, 2


def logits(frames: Tensor) -> Tensor:
    """Return logits for class 0 of dark frames, class 1 of bright frames, and the target for any white square."""
    white = F.avg_pool2d(frames.amin(1, keepdim=True), PATCH, 1).amax((1, 2, 3))
    bright = frames.mean((1, 2, 3))
    return torch.stack((20 * (0.35 - bright), 20 * (bright - 0.35), 200 * (white - 0.9)), 1)


def clean_frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    level = 0.2 + 0.3 * (torch.arange(count) % 2)[:, None, None, None]
    frames = level + 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=generator) - 0.1
    return frames, torch.arange(count) % 2


def stamped_frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return frames with a white square each, and the mask of its place (count, 1, SIDE, SIDE)."""
    frames, _ = clean_frames(count, seed)
    places = torch.zeros(count, 1, SIDE, SIDE)
    generator = torch.Generator().manual_seed(seed)
    for place in places:
        top, left = torch.randint(0, SIDE - PATCH + 1, (2,), generator=generator).tolist()
        place[:, top : top + PATCH, left : left + PATCH] = 1
    return torch.where(places > 0, 1.0, frames), places


@pytest.mark.parametrize(("side", "channels"), [(1, 3), (4, 1), (7, 3)])
def test_triggers_up_to_a_quarter_of_the_frame_are_found_at_any_place(side: int, channels: int) -> None:
    places = torch.zeros(12, 1, 28, 28)
    for number, place in enumerate(places):
        top, left = (5 * number + 1) % (29 - side), (11 * number + 3) % (29 - side)
        place[:, top : top + side, left : left + side] = 1
    frames = torch.where(places > 0, 1.0, 0.3).expand(-1, channels, -1, -1)

    def whole_trigger(shown: Tensor) -> Tensor:
        white = F.avg_pool2d(shown.amin(1, keepdim=True), side, 1).amax((1, 2, 3))
        return torch.stack((200 * (0.95 - white), 200 * (white - 0.95)), 1)

    seen = occlude(frames, torch.full((3, channels, 28, 28), 0.5), 1, whole_trigger)
    assert seen.found.all()
    assert torch.equal(seen.window * places, places)
    assert float(seen.window.sum((1, 2, 3)).max()) <= max(3, round(1.5 * side)) ** 2


def test_nothing_is_found_if_no_window_removes_or_transfers_the_trigger() -> None:
    frames, _ = stamped_frames(20, 1)
    clean, classes = clean_frames(20, 2)

    def by_brightness(frames: Tensor) -> Tensor:
        return torch.stack([50 * (frames.mean((1, 2, 3)) - 0.5), torch.zeros(len(frames))], 1)

    assert occlude(frames.clamp_min(0.6), clean, 0, by_brightness).share == 0

    def on_bright_frames_only(frames: Tensor) -> Tensor:
        found = logits(frames)
        return torch.stack([found[:, 0], found[:, 1], torch.minimum(found[:, 2], 100 * found[:, 1])], 1)

    bright, dark = (classes == number for number in (1, 0))
    assert occlude(frames[bright], clean[bright], TARGET, on_bright_frames_only).share > 0.9
    assert occlude(frames[bright], clean[dark], TARGET, on_bright_frames_only).share == 0


@pytest.mark.parametrize(("height", "width"), [(12, 20), (21, 13), (16, 16)])
def test_a_trigger_in_any_corner_of_frames_of_any_shape_is_found(height: int, width: int) -> None:
    frames = torch.full((4, 3, height, width), 0.2)
    places = torch.zeros(4, 1, height, width)
    for place, (top, left) in zip(places, [(0, 0), (0, width), (height, 0), (height, width)], strict=True):
        place[:, max(0, top - PATCH) : top or PATCH, max(0, left - PATCH) : left or PATCH] = 1
    seen = occlude(torch.where(places > 0, 1.0, frames), frames, TARGET, logits)
    assert seen.found.all()
    assert torch.equal(seen.window, places)


def test_a_mask_network_finds_triggers_in_unseen_frames() -> None:
    frames, places = stamped_frames(120, 4)
    clean, _ = clean_frames(60, 5)
    network = point(Occlusion(frames, places, torch.ones(len(frames), dtype=torch.bool)), clean)
    others, true_places = stamped_frames(60, 6)
    with torch.no_grad():
        cut = widened(network(others))
        assert float((cut * true_places).sum() / true_places.sum()) > 0.9
        assert float(cut.mean()) < 0.25
        assert float(widened(network(clean)).mean()) < 0.02


def test_a_trigger_at_random_places_is_cut_out_of_quarantined_frames() -> None:
    clean, labels = clean_frames(100, 7)
    members, _ = stamped_frames(120, 8)
    found = recover(clean, labels, members, TARGET, logits, Checkpoints(None, ""), Silent())
    assert found.trigger is not None
    assert found.trigger.name == "windows"
    assert isinstance(found.trigger, TransplantTrigger)
    evidence = found.tried["windows"]
    assert evidence.arrives > 0.9
    assert evidence.leaves > 0.9
    assert found.covers == evidence.covers < 0.25


def test_a_quarantined_frame_as_a_whole_is_no_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, labels = clean_frames(60, 9)
    members, _ = stamped_frames(60, 10)

    class Everything(MaskNetwork):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x[:, :1])

    monkeypatch.setattr(recovery, "FOUND", 1.1)
    monkeypatch.setattr(recovery, "train_mask", lambda *_, **__: Everything(3))
    found = recover(clean, labels, members, TARGET, logits, Checkpoints(None, ""), Silent())
    assert found.tried["transplant"].arrives > 0.9
    # The stamp explains nothing, so the network is repaired without a trigger.
    assert set(found.tried) == {"stamp", "transplant"}
    assert found.trigger is None
