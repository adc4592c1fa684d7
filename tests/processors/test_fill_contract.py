"""The contract of all stages that fill dropped pixels: range, kept pixels, independence, gradients and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from processors.stages import learned, paper
from processors.stages.at_scale import at_scale
from processors.stages.drop import drop
from processors.stages.nearest import reconstruct_nearest
from processors.stages.paper import reconstruct_paper
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import reconstruct
from schemas.errors import StageError
from tests.processors.kernel_rig import random_case

Fill = Callable[[Tensor, Tensor], Tensor]


class Stage(NamedTuple):
    fill: Fill
    keeps: bool
    """Whether the result contains the kept pixels unchanged."""
    differentiable: bool


STAGES = {
    "default": Stage(reconstruct, False, True),
    "plate": Stage(reconstruct_plate, True, True),
    "paper": Stage(lambda frames, kept: reconstruct_paper(frames, kept, iterations=3), True, False),
    "nearest": Stage(reconstruct_nearest, True, False),
    "at scale": Stage(lambda frames, kept: at_scale(frames, kept, 16, 12)[0], False, True),
}
stages = pytest.mark.parametrize("name", STAGES)


@stages
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    ratio=st.sampled_from([0.0, 0.25, 0.7, 0.97, 1.0]),
    seed=st.integers(0, 1000),
)
def test_range_and_kept_pixels_are_preserved_for_any_size_and_mask(
    name: str, batch: int, channels: int, height: int, width: int, ratio: float, seed: int
) -> None:
    stage = STAGES[name]
    frames, kept = random_case((batch, channels, height, width), ratio, seed)
    found = stage.fill(frames, kept)
    assert found.shape == ((batch, channels, 16, 12) if name == "at scale" else frames.shape)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    if stage.keeps:
        assert torch.equal(torch.where(kept, found, 0), torch.where(kept, frames, 0))


@stages
def test_dropped_pixels_are_not_read(name: str, device: torch.device) -> None:
    fill = STAGES[name].fill
    frames, kept = (each.to(device) for each in random_case((2, 3, 24, 24), 0.4))
    expected = fill(frames, kept)
    assert torch.equal(fill(frames.masked_fill(~kept, torch.nan), kept), expected)
    assert torch.equal(fill(drop(frames, kept), kept), expected)


@stages
def test_a_frame_depends_neither_on_its_batch_nor_on_the_split_of_the_batch(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = STAGES[name].fill
    frames, kept = (each.to(device) for each in random_case((5, 3, 24, 20), 0.25))
    kept[1] = False
    together = fill(frames, kept)
    torch.testing.assert_close(fill(frames[2:3], kept[2:3]), together[2:3], atol=1e-5, rtol=0)
    monkeypatch.setattr(learned, "PIXELS_AT_ONCE", 2 * 24 * 20)
    monkeypatch.setattr(paper, "CHUNK_CPU", 3)
    torch.testing.assert_close(fill(frames, kept), together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.differentiable])
def test_gradients_flow_to_the_kept_pixels_only(name: str, device: torch.device) -> None:
    frames, kept = (each.to(device) for each in random_case((1, 3, 16, 16), 0.25))
    frames.requires_grad_()
    (gradient,) = torch.autograd.grad(STAGES[name].fill(frames, kept).sum(), frames)
    assert not gradient[(~kept).expand_as(frames)].any()
    assert gradient[kept.expand_as(frames)].any()


@stages
def test_a_mask_of_the_wrong_shape_or_type_is_named(name: str) -> None:
    fill = STAGES[name].fill
    frames, kept = random_case((2, 3, 8, 8), 0.25)
    with pytest.raises(StageError, match=r"expected shape \(2, 1, 8, 8\).*got \(2, 3, 8, 8\)"):
        fill(frames, kept.expand(-1, 3, -1, -1))
    with pytest.raises(StageError, match=r"expected torch\.bool, got torch\.float32"):
        fill(frames, kept.float())
