"""The scenes that the fleet's network is hardened on, and the page about what that gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lab.hardening.scene_batches import HARD, SceneBatches, Sized, between
from producers.scene.simulator import Conditions

SIZES = (Sized((32, 32), 20, 2), Sized((64, 64), 20, 1))


def batches() -> SceneBatches:
    return SceneBatches(8, 0, 5, hard=0.5, least=0.25, sizes=SIZES)


def test_sizes_take_turns_and_a_batch_depends_on_its_number_alone() -> None:
    one, other = batches(), batches()
    one.batch(0)
    for step, side in ((1, 32), (2, 64), (3, 32), (5, 64)):
        first, second = one.batch(step), other.batch(step)
        assert first.frames.shape == (8, 3, side, side)
        assert 0 <= float(first.frames.min()) <= float(first.frames.max()) <= 1
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_harder_a_place_the_milder_its_attack() -> None:
    strength = torch.cat([found[2] for found in batches().sets])
    assert float(strength.min()) >= 0.25
    assert float(strength.max()) == 1
    assert len(strength.unique()) > 2  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert between(0) == Conditions()
    assert between(1) == HARD
    assert between(0.5).light == pytest.approx((1 + HARD.light) / 2)


def test_every_tenth_place_is_grey() -> None:
    frames = batches().sets[0][0].numpy()
    grey = np.ptp(frames.astype(int), axis=1).max((1, 2)) == 0
    assert list(np.flatnonzero(grey)) == [0, 10]
